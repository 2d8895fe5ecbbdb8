//! How other products spell what is written otherwise here: eKuiper, Flink, ksqlDB, Azure, SQL Server, MySQL,
//! PostgreSQL, Influx.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::options::SqlOptions;
use crate::options::in_comment;

const TUMBLE: &str =
    "write FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND) .. GROUP BY window_start, window_end";
const HOP: &str = "write FROM HOP(stream, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' SECOND), the \
    slide first, .. GROUP BY window_start, window_end";
const SESSION: &str = "write FROM SESSION(stream PARTITION BY device, DESCRIPTOR(ts), INTERVAL '10' SECOND) \
    .. GROUP BY window_start, window_end, device";
const WINDOW_START: &str =
    "write the column `window_start`, which FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND) adds";
const WINDOW_END: &str =
    "write the column `window_end`, which FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND) adds";
const NOW: &str = "write now()";
const TIME_MINUS: &str = "write `ts - INTERVAL '1' HOUR`, or `+`";
const TIME_BETWEEN: &str =
    "write `date_part('epoch', ts - earlier)`, in seconds, or compare `ts - earlier > INTERVAL '10' SECOND`";

/// Functions that there are not, and what to write instead.
const FUNCTIONS: &[(&[&str], &str)] = &[
    (&["tumblingwindow", "tumble", "tumbling", "window", "time_window", "time", "aggregatewindow"], TUMBLE),
    (&["hoppingwindow", "hop", "hopping"], HOP),
    (&["sessionwindow", "session", "session_window"], SESSION),
    (&["cumulate"], "write FROM CUMULATE(stream, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR)"),
    (
        &["slidingwindow", "sliding"],
        "write the aggregate with OVER (PARTITION BY device ORDER BY ts RANGE BETWEEN INTERVAL '10' SECOND \
        PRECEDING AND CURRENT ROW)",
    ),
    (&["countwindow", "count_window"], "write FROM COUNT_WINDOW(stream PARTITION BY device, 100)"),
    (
        &["statewindow", "state_window"],
        "write FROM STATE_WINDOW(stream PARTITION BY device, running, NOT running)",
    ),
    (&["tumble_start", "hop_start", "session_start", "cumulate_start", "window_start"], WINDOW_START),
    (&["tumble_end", "hop_end", "session_end", "cumulate_end", "window_end"], WINDOW_END),
    (
        &[
            "tumble_rowtime",
            "hop_rowtime",
            "session_rowtime",
            "tumble_proctime",
            "hop_proctime",
            "session_proctime",
        ],
        WINDOW_END,
    ),
    (
        &["meta", "mqtt", "topic"],
        "a level of the topic is a column when the stream's `topic` names it: \"line1/{device}/meas\"",
    ),
    (&["tstamp", "event_time", "rowtime", "current_watermark"], "the event time of a row is its column `ts`"),
    (
        &["proctime", "processing_time"],
        "write now(); the `ts` of a stream without `ts` in its configuration is the time of arrival",
    ),
    (&["getdate", "getutcdate", "sysdatetime", "sysutcdatetime", "sysdate", "curtime", "localtime"], NOW),
    (&["curdate"], "write CURRENT_DATE"),
    (&["localtimestamp"], "write `now() AT TIME ZONE 'Europe/Berlin'`"),
    (&["convert_tz", "from_utc_timestamp", "tz_offset"], "write `ts AT TIME ZONE 'Europe/Berlin'`"),
    (&["format", "date_format"], "write `round(x, 2)` of a number, or `to_char(ts, '%Y-%m-%d %H:%M:%S')`"),
    (&["isnumeric", "is_number"], "write `TRY_CAST(x AS DOUBLE) IS NOT NULL`"),
    (
        &["mode"],
        "count them: SELECT x, count(*) .. GROUP BY window_start, window_end, x QUALIFY row_number() OVER \
        (PARTITION BY window_start, window_end ORDER BY count(*) DESC) = 1",
    ),
    (&["mod"], "write `x % y`"),
    (&["unix_timestamp"], "write `date_part('epoch', ts)`"),
    (
        &["latest", "last", "last_row"],
        "write `last_value(x)`; the latest row of another stream is FOR SYSTEM_TIME AS OF",
    ),
    (&["first"], "write `first_value(x)`"),
    (&["had_changed", "changed_col", "changed_cols"], "write `changed(x) OVER (PARTITION BY device)`"),
    (&["last_hit_time", "last_hit_count"], "write `since(condition) OVER (PARTITION BY device)`, in seconds"),
    (&["if", "iif", "decode", "choose"], "write CASE WHEN condition THEN x ELSE y END"),
    (&["isnull"], "write `coalesce(x, 0)`, or `x IS NULL`"),
    (&["len"], "write `length(x)`"),
    (&["dateadd", "date_add", "date_sub", "adddate", "subdate", "timestampadd"], TIME_MINUS),
    (&["datediff", "datediff_big", "timestampdiff", "timediff", "age"], TIME_BETWEEN),
    (&["datename"], "write `to_char(ts, '%A')`"),
    (
        &["hour", "minute", "second", "day", "month", "year", "dayofweek", "weekday"],
        "write `date_part('hour', ts)`",
    ),
    (
        &["convert", "parse", "try_parse", "to_number", "tonumber", "toint", "tofloat"],
        "write `CAST(x AS DOUBLE)`",
    ),
    (&["tostring"], "write `CAST(x AS VARCHAR)`"),
    (&["charindex", "locate", "indexof"], "write `strpos(text, part)`"),
    (&["str_to_date", "strptime", "parse_timestamp"], "write `to_timestamp(text, '%d.%m.%Y %H:%M:%S')`"),
    (&["group_concat", "listagg", "collect"], "write `string_agg(x, ',')`, or `array_agg(x)`"),
    (
        &["time_bucket"],
        "write `date_bin(INTERVAL '10' SECOND, ts)`, or FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' \
        SECOND)",
    ),
    (
        &["percentile", "percentile_cont", "quantile"],
        "write `approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY x)`",
    ),
    (&["countif", "count_if"], "write `count(*) FILTER (WHERE condition)`"),
    (&["sumif", "avgif"], "write `sum(x) FILTER (WHERE condition)`"),
    (
        &["derivative", "non_negative_derivative", "irate", "idelta"],
        "write `rate(x) OVER (PARTITION BY device)`, a second",
    ),
    (&["delta", "difference", "acc_sum"], "write `x - lag(x) OVER (PARTITION BY device)`"),
    (&["non_negative_difference"], "write `increase(x) OVER (PARTITION BY device)`"),
    (&["elapsed"], "write `ts - lag(ts) OVER (PARTITION BY device)`"),
    (
        &["moving_average", "acc_avg", "exponential_moving_average"],
        "write `avg(x) OVER (PARTITION BY device ROWS 9 PRECEDING)`, or `ewma(x, 0.2) OVER (PARTITION BY \
        device)`",
    ),
    (&["spread"], "write `max(x) - min(x)`"),
    (&["rand", "newid"], "a rule has no dice: the same rows must always give the same result"),
];

/// What to write instead of the function `name`, in lower case.
pub(super) fn of_function(name: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(names, _)| names.contains(&name)).map(|(_, help)| *help)
}

/// What to write instead of the column `name`, which there is not.
pub(super) fn of_column(name: &str) -> Option<&'static str> {
    match name.to_lowercase().as_str() {
        "window_start" | "window_end" => {
            Some("windows add it: FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND)")
        }
        "localtimestamp" => Some("write `now() AT TIME ZONE 'Europe/Berlin'`"),
        variable if variable.starts_with('@') => {
            Some("a rule has no variables: write the value, or look it up in a reference table")
        }
        "time" | "_time" | "timestamp" | "rowtime" | "event_time" | "eventtime" | "proctime" => {
            Some("the event time of a row is its column `ts`")
        }
        _ => None,
    }
}

/// A token that no rule has, and what to write.
pub(super) fn of_token(token: &Token) -> Option<(String, &'static str)> {
    let comment = "comments begin with `--`";
    match token {
        Token::DuckIntDiv => Some(("`//` is no comment in SQL".into(), comment)),
        Token::Word(word) if word.quote_style.is_none() && word.value.starts_with('#') => {
            Some(("`#` is no comment in SQL".into(), comment))
        }
        Token::Char('\u{feff}' | '\u{200b}' | '\u{200c}' | '\u{200d}' | '\u{2060}') => {
            Some(("an invisible character stands here".into(), "delete it and type the words anew"))
        }
        Token::Char(quote @ ('\u{2018}'..='\u{201f}' | '\u{00b4}')) => Some((
            format!("`{quote}` is no quotation mark of SQL"),
            "write text in straight single quotes: 'press'",
        )),
        Token::Char(dash @ ('\u{2010}'..='\u{2015}' | '\u{2212}')) => {
            Some((format!("`{dash}` is no minus and begins no comment"), "type `-`"))
        }
        _ => None,
    }
}

/// What is meant by `tokens`, which the parser could not go on reading at `at`.
pub(super) fn of_syntax(tokens: &[TokenWithSpan], at: usize) -> Option<(&'static str, &'static str)> {
    let read = tokens.get(..at).unwrap_or(tokens);
    let begin = read.iter().rposition(|token| token.token == Token::SemiColon).map_or(0, |at| at + 1);
    let statement = read.get(begin..).unwrap_or_default();
    let keyword = |token: &Token| match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let is = |token: Option<&TokenWithSpan>, name: &str| {
        token.is_some_and(
            |token| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name)),
        )
    };
    let count = |wanted: Keyword| statement.iter().filter(|token| keyword(&token.token) == wanted).count();
    let (first, second, here) = (statement.first(), statement.get(1), tokens.get(at));
    let creates = is(first, "CREATE") || (is(here, "CREATE") && statement.is_empty());
    let what = |token| is(token, "STREAM") || is(token, "TABLE");
    if creates && (what(second) || what(here)) {
        return Some((
            "streams are not created by rules",
            "declare [streams.NAME] in the configuration, with `ts` for the event time; a rule says `--! \
            lateness = \"5s\"`",
        ));
    }
    if count(Keyword::CASE) > count(Keyword::END) && !is(here, "WHEN") {
        return Some(("CASE has no END", "write CASE WHEN condition THEN x ELSE y END"));
    }
    let here_keyword = here.map_or(Keyword::NoKeyword, |token| keyword(&token.token));
    // The first word of the next statement may have been read as an alias.
    let begins_anew = statement.len() > 1 && is(statement.last(), "INSERT") && is(here, "INTO");
    if begins_anew || !statement.is_empty() && matches!(here_keyword, Keyword::INSERT | Keyword::CREATE) {
        return Some((
            "two statements follow each other without `;`",
            "write `;` at the end of each statement",
        ));
    }
    if here.is_some_and(|token| token.token == Token::ExclamationMark) {
        return Some(("`!` is no operator", "write NOT"));
    }
    if here.is_some_and(|token| token.token == Token::Sharp) {
        return Some(("`#` is no comment in SQL", "comments begin with `--`"));
    }
    if is(here, "MOD") || is(statement.last(), "MOD") {
        return Some(("`MOD` is no operator", "write `x % y`"));
    }
    let units = ["SEC", "SECS", "MIN", "MINS", "HR", "HRS", "MSEC", "MSECS", "MS", "S", "M", "H", "D"];
    if units.iter().any(|unit| is(here, unit)) {
        return Some((
            "there is no unit of time of this name",
            "write MILLISECOND, SECOND, MINUTE, HOUR or DAY: INTERVAL '10' SECOND",
        ));
    }
    if let Some(wrong) = first.or(here).and_then(|token| of_statement(&token.token)) {
        return Some(wrong);
    }
    if here_keyword == Keyword::DIV || is(statement.last(), "DIV") {
        return Some((
            "`DIV` is no operator",
            "write `CAST(a / b AS BIGINT)`; whole numbers divided by `/` give whole numbers",
        ));
    }
    if here.is_some_and(|token| token.token == Token::LBracket) {
        return Some((
            "a name does not stand in brackets",
            "write \"Name\" in double quotes, or the name alone",
        ));
    }
    if is(statement.last(), "WINDOW") && (is(here, "TUMBLING") || is(here, "HOPPING") || is(here, "SESSION"))
        || ["TUMBLING", "HOPPING"].iter().any(|name| is(statement.last(), name) || is(here, name))
    {
        return Some(("windows stand in FROM", TUMBLE));
    }
    if is(here, "EMIT") || is(statement.last(), "EMIT") {
        return Some((
            "when windows write is an option",
            "write `--! emit = \"row\"`, or `--! emit_every = \"1s\"`, above the SQL",
        ));
    }
    None
}

/// A statement that begins with `token` and that no rule has.
pub(super) fn of_statement(token: &Token) -> Option<(&'static str, &'static str)> {
    let Token::Word(word) = token else { return None };
    Some(match word.value.to_uppercase().as_str() {
        "GO" => ("`GO` is no SQL", "end each statement with `;`"),
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "END" => (
            "a rule has no transactions and no blocks",
            "leave it out: what a rule writes for a row is taken as a whole",
        ),
        "DECLARE" | "SET" => {
            ("a rule has no variables", "write the value, or look it up in a reference table")
        }
        _ => return None,
    })
}

/// Comments that look like options, below the SQL or misspelt, which nobody would read.
pub(super) fn options_out_of_place(
    tokens: &[TokenWithSpan],
) -> impl Iterator<Item = (&TokenWithSpan, &'static str, String)> {
    const HELP: &str = "write it above the first statement, on a line of its own: `--! mode = \"off\"`";
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let sql_begins = tokens.iter().position(|token| !is_space(token)).unwrap_or(tokens.len());
    // Options are read line by line, up to the first that is neither empty nor a comment of one line.
    let block_begins = tokens
        .iter()
        .position(|token| matches!(token.token, Token::Whitespace(Whitespace::MultiLineComment(_))));
    let end = sql_begins.min(block_begins.unwrap_or(tokens.len()));
    let reads_like = |line: &str| {
        in_comment::<SqlOptions>(line).map(|option| {
            let what = "this comment reads like an option, and is none";
            (what, format!("write `--! {option}` above the first statement, or say it in other words"))
        })
    };
    tokens.iter().enumerate().filter_map(move |(at, token)| {
        let (what, help) = match &token.token {
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) if comment.starts_with('!') => {
                let below = at > end;
                let what = "this option is not read, since it does not stand at the top";
                below.then(|| (what, HELP.to_owned()))?
            }
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. })
                if comment.trim_start().starts_with('!') =>
            {
                ("this is a comment and no option", "write `--!`, without a space between".to_owned())
            }
            Token::Whitespace(Whitespace::MultiLineComment(comment))
                if comment.trim_start().starts_with('!') =>
            {
                ("this is a comment and no option", HELP.to_owned())
            }
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => reads_like(comment)?,
            Token::Whitespace(Whitespace::MultiLineComment(comment)) => {
                comment.lines().find_map(reads_like)?
            }
            _ => return None,
        };
        Some((token, what, help))
    })
}
