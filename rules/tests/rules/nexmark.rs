//! The Nexmark queries that make sense on one box, against stock DataFusion over the whole recorded input.
//!
//! `nexmark/qNN.sql` is the rule, `nexmark/qNN.stock.sql` the same in stock SQL. Nexmark is an auction house:
//! people, auctions and bids, 1 : 3 : 46 (<https://datalab.cs.pdx.edu/niagara/NEXMark/>, queries as in
//! <https://github.com/nexmark/nexmark>). Where the original never ends, the rule goes by window, and says
//! so. Left out: q6 and q9 (an endless join of all bids), q10 (writes files), q13 (a side input; reference
//! tables have tests of their own), q15 (q16 without channels).

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs, ts_type};
use tidegate_rules::{Catalog, Emissions, When};

use crate::bench_rows::rule_of;
use crate::oracle::sorted;

const MS: i64 = 1_000_000;
/// 2015-07-15T00:00:00Z, where the original begins.
const BEGIN_MS: i64 = 1_436_918_400_000;
const STREAMS: [&str; 3] = ["person", "auction", "bid"];

fn schema(stream: &str) -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, true);
    let text = |name| Field::new(name, DataType::Utf8, true);
    let fields = match stream {
        "person" => vec![number("id"), text("name"), text("city"), text("state")],
        "auction" => vec![
            number("id"),
            text("item_name"),
            number("category"),
            number("seller"),
            Field::new("expires", ts_type(), true),
        ],
        _ => vec![number("auction"), number("bidder"), number("price"), text("channel"), text("url")],
    };
    Arc::new(Schema::new([vec![ts_field()], fields].concat()))
}

/// Something that happens in the auction house, as one row of a stream.
struct Event {
    stream: &'static str,
    row: RecordBatch,
}

/// `count` events, drawn from `seed`, out of order by up to two seconds. No two have the same time.
fn events(seed: u64, count: u64) -> Vec<Event> {
    let mut state = seed;
    let mut draw = move |below: u64| {
        // SplitMix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    };
    let mut events: Vec<(i64, Event)> = Vec::new();
    let (mut people, mut auctions) = (0_i64, 0_i64);
    for n in 0..count {
        // Odd milliseconds, so that no time is that of another event nor of a window's end.
        let at_ms = BEGIN_MS + i64::try_from(n * 150 + 2 * draw(70) + 1).unwrap();
        let mut pick =
            |choices: &[&str]| choices[usize::try_from(draw(choices.len() as u64)).unwrap()].to_owned();
        let text = |value: String| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let number = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        let time = |ms: i64| {
            Arc::new(TimestampNanosecondArray::from(vec![ms * MS]).with_timezone("UTC")) as ArrayRef
        };
        let (stream, columns) = match n % 50 {
            0 => {
                people += 1;
                let name = pick(&["Ada", "Grace", "Edsger", "Barbara"]);
                (
                    "person",
                    vec![
                        number(people),
                        text(name),
                        text(pick(&["Portland", "Boise", "Bend"])),
                        text(pick(&["OR", "ID", "CA", "WA"])),
                    ],
                )
            }
            1 | 17 | 34 => {
                auctions += 1;
                let item = pick(&["vase", "lathe", "pump"]);
                let category = i64::try_from(9 + draw(3)).unwrap();
                let seller = 1 + i64::try_from(draw(people.unsigned_abs())).unwrap();
                let expires = at_ms + 1_000 + i64::try_from(draw(25_000)).unwrap();
                (
                    "auction",
                    vec![number(auctions), text(item), number(category), number(seller), time(expires)],
                )
            }
            _ => {
                let channel = pick(&["Google", "Apple", "channel-7", "Baidu"]);
                let url = pick(&[
                    "https://www.nexmark.com/abc/def/item.htm?query=1",
                    "https://www.nexmark.com/x/y/z.htm?query=1&channel_id=77",
                ]);
                // The newest auctions draw the most bids.
                let auction = auctions - i64::try_from(draw(8)).unwrap().min(auctions - 1);
                let bidder = 1 + i64::try_from(draw(people.unsigned_abs().min(6))).unwrap();
                let price =
                    10_i64.pow(u32::try_from(draw(6)).unwrap()) * i64::try_from(1 + draw(99)).unwrap();
                ("bid", vec![number(auction), number(bidder), number(price), text(channel), text(url)])
            }
        };
        let row = RecordBatch::try_new(schema(stream), [vec![time(at_ms)], columns].concat()).unwrap();
        let arrives_ms = at_ms + i64::try_from(draw(2_000)).unwrap();
        events.push((arrives_ms, Event { stream, row }));
    }
    events.sort_by_key(|(arrives_ms, _)| *arrives_ms);
    events.into_iter().map(|(_, event)| event).collect()
}

fn stock(query: &str, events: &[Event]) -> Vec<String> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let context = SessionContext::new();
        for stream in STREAMS {
            let rows: Vec<&RecordBatch> =
                events.iter().filter(|event| event.stream == stream).map(|event| &event.row).collect();
            let table =
                MemTable::try_new(schema(stream), vec![vec![concat_batches(&schema(stream), rows).unwrap()]])
                    .unwrap();
            context.register_table(stream, Arc::new(table)).unwrap();
        }
        sorted(&context.sql(query).await.unwrap().collect().await.unwrap())
    })
}

fn catalog() -> Catalog {
    let inputs = STREAMS.map(|stream| (stream.to_owned(), Some(schema(stream))));
    Catalog { inputs: inputs.into(), uplink: true, ..Catalog::default() }
}

/// Runs the rule, in batches of at most the sizes `cuts`, which are repeated; the rule is replaced by itself
/// before event `swap`.
fn streamed(text: &str, events: &[Event], cuts: &[usize], swap: usize) -> Vec<String> {
    let catalog = catalog();
    let mut rule = rule_of(text, &catalog);
    let mut out = Emissions::default();
    let mut cuts = cuts.iter().copied().cycle();
    let mut at = 0;
    while at < events.len() {
        if at == swap {
            let mut next = rule_of(text, &catalog);
            assert_eq!(next.restore(rule.seal().unwrap()).unwrap(), Vec::<String>::new());
            rule = next;
        }
        let stream = events[at].stream;
        let most = cuts.next().unwrap_or(1).min(if at < swap { swap - at } else { usize::MAX });
        let rows: Vec<&RecordBatch> = events[at..]
            .iter()
            .take(most)
            .take_while(|event| event.stream == stream)
            .map(|event| &event.row)
            .collect();
        let rows = Rows {
            batch: concat_batches(&schema(stream), rows).unwrap(),
            seqs: Seqs::Run { first: at as u64 },
        };
        rule.on_batch(stream, &rows, When::at(0), &mut out).unwrap();
        at += rows.len();
    }
    rule.on_end(events.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!((out.late, out.bad_rows), (0, 0), "{:?}", out.bad_row);
    sorted(&out.rows.into_iter().map(|emission| emission.rows.batch).collect::<Vec<_>>())
}

#[test]
fn the_queries_give_what_stock_datafusion_gives() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nexmark");
    let mut rules: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    rules.retain(|path| {
        path.to_str().unwrap().ends_with(".sql") && !path.to_str().unwrap().ends_with(".stock.sql")
    });
    rules.sort();
    assert!(rules.len() >= 18, "the queries were found");
    let config = ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() };
    for path in rules {
        let text = fs::read_to_string(&path).unwrap();
        let query = fs::read_to_string(path.with_extension("stock.sql")).unwrap();
        let rows = Cell::new(0);
        proptest!(config.clone(), |(seed: u64, cuts in prop::collection::vec(1_usize..20, 1..8), swap in 0_usize..1_000)| {
            let events = events(seed, 1_000);
            let expected = stock(&query, &events);
            rows.set(rows.get() + expected.len());
            prop_assert_eq!(streamed(&text, &events, &cuts, swap), expected, "{}", path.display());
        });
        assert!(rows.get() > 0, "{}: no row was compared", path.display());
    }
}
