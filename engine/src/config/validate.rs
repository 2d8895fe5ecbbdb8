//! From the file's tables to a [`Config`]: reads each table, then checks what one table alone cannot tell.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_connectors::codec::check_fields;
use tidegate_connectors::connection::Kind;
use tidegate_connectors::table::{At, Remark, Review};
use tidegate_connectors::{ConnectionConfig, OutputConfig, StreamConfig, UplinkConfig};
use tidegate_core::diagnostic::{Severity, did_you_mean, nearest};
use tidegate_core::{ByteSize, Diagnostic, Span};
use tidegate_rules::{Condition, ConditionError, SHORTEST_TTL};

use super::contract::{
    self, Contract, ContractKind, ContractTable, Facts, MaxInputAge, Rest, StreamsOfContracts, WordOr,
};
use super::document::{self, Report, Table};
use super::file::{
    BufferTable, BufferWhenFull, DerivedStream, Durability, OUTPUT_KEYS, OutputKeys, RootKeys, RulesTable,
    TableKeys, UPLINK_KEYS, UplinkKeys,
};
use super::{Buffer, Config, Output, ReferenceTable, Rules, Stream, TableKind, Uplink, management, names};

const SECTIONS: [&str; 9] =
    ["connections", "streams", "tables", "outputs", "uplink", "uplinks", "rules", "buffer", "management"];

/// More rows than this in one queue would be memory that a small box does not have.
const LONGEST_QUEUE: usize = 1_000_000;
/// What waits for its acknowledgement has a number of 16 bits where it has one.
const MOST_IN_FLIGHT: usize = 65_535;
/// A rule that is not given the processor for so long is no rule that has gone astray.
const SHORTEST_TIME_LIMIT: Span = Span(Duration::from_millis(100));
const MOST_WORKERS: usize = 256;
/// SQLite's own pages and indexes need room too.
const SMALLEST_BUFFER: ByteSize = ByteSize(1 << 20);
/// Longer, and a far side that waits for acknowledgements would take the box for dead.
const LONGEST_COMMIT: Span = Span(Duration::from_secs(10));
/// More often, it would be as good as `durability = "full"`.
const SHORTEST_SYNC: Span = Span(Duration::from_millis(100));
/// More often, the rules would do little else.
const SHORTEST_SNAPSHOT: Span = Span(Duration::from_secs(1));

pub(super) fn config(text: &str, file: &str, base_dir: &Path) -> Result<Config, Vec<Diagnostic>> {
    let mut report = Report::new(file, text);
    let root = document::parse(text, &mut report);
    if report.has_errors() {
        // What is behind a broken line would be misread: only the syntax is reported.
        return Err(report.into_diagnostics());
    }
    let config = Validator { base_dir, kinds: BTreeMap::new(), report: &mut report }.config(root);
    match config {
        Some(config) if !report.has_errors() => {
            Ok(Config { file: PathBuf::from(file), warnings: report.into_diagnostics(), ..config })
        }
        _ => Err(report.into_diagnostics()),
    }
}

/// What is wrong with the lists of rules of the uplinks, if these are the `rules` that there are.
pub(super) fn uplink_rules(text: &str, file: &str, rules: &[&str]) -> Vec<Diagnostic> {
    let mut report = Report::new(file, text);
    let mut root = document::parse(text, &mut report);
    let only = root.take_table(names::UPLINK, "[uplink]", &mut report);
    let several =
        root.take_table("uplinks", "[uplinks.NAME]", &mut report).map(|table| table.into_tables(&mut report));
    for table in only.into_iter().chain(several.unwrap_or_default()) {
        for (rule, span) in table.texts("rules").into_iter().filter(|(rule, _)| !rules.contains(rule)) {
            report.error(
                &span,
                format!("there is no rule `{rule}` that {} could take", table.title()),
                did_you_mean(rule, rules),
            );
        }
    }
    report.into_diagnostics()
}

struct Validator<'a, 'r> {
    base_dir: &'a Path,
    /// The kind of every connection that was declared, as far as it can be told; also of those that have
    /// errors.
    kinds: BTreeMap<String, Option<Kind>>,
    report: &'a mut Report<'r>,
}

impl Validator<'_, '_> {
    fn config(&mut self, mut root: Table<'_>) -> Option<Config> {
        let connections = self.tables(&mut root, "connections");
        let connections = self.connections(&connections);
        let streams = self.tables(&mut root, "streams");
        let outputs = self.tables(&mut root, "outputs");
        let tables = self.tables(&mut root, "tables");
        self.check_targets(&streams, &tables, &outputs);
        let stream_names: Vec<String> = streams.iter().map(|table| table.name().to_owned()).collect();
        let streams: BTreeMap<String, Stream> = streams
            .iter()
            .filter_map(|table| Some((table.name().to_owned(), self.stream(table, &connections)?)))
            .collect();
        let tables = tables
            .iter()
            .filter_map(|table| Some((table.name().to_owned(), self.reference_table(table)?)))
            .collect();
        let output_tables = outputs.clone();
        let outputs: BTreeMap<String, Output> = outputs
            .into_iter()
            .filter_map(|table| Some((table.name().to_owned(), self.output(table, &connections)?)))
            .collect();
        let known = StreamsOfContracts::new(&streams, &stream_names);
        for table in &output_tables {
            if let Some(output) = outputs.get(table.name()) {
                self.check_contract(table, output, &known, &output_tables);
                self.check_end(table, output, connections.get(output.config.connection()));
            }
        }
        let uplinks = self.uplinks(&mut root, &connections);
        let management = root.take_table("management", "[management]", self.report);
        let management =
            management.and_then(|table| management::read(&table, &connections, &self.kinds, self.report));
        let rules = self.or_empty(&mut root, "rules");
        let rules = self.rules(&rules);
        let buffer = self.or_empty(&mut root, "buffer");
        let buffer = buffer.read::<BufferTable>(&[], self.report).map(|keys| (keys, buffer));
        let keys: RootKeys = root.read(&SECTIONS, self.report)?;
        if let Err(why) = names::check_box(&keys.name) {
            self.report.error(
                &root.span_of(&["name"]),
                format!("\"{}\" cannot be a box's name", keys.name),
                why,
            );
        }
        let data_dir = self.base_dir.join(&keys.data_dir);
        if data_dir.exists() && !data_dir.is_dir() {
            self.report.error(
                &root.span_of(&["data_dir"]),
                format!("`data_dir` names {}, which is not a directory", data_dir.display()),
                None,
            );
        }
        let (buffer_keys, buffer_table) = buffer?;
        let buffer = self.buffer(buffer_keys, &buffer_table, &data_dir);
        let (rules, warnings) = (rules?, Vec::new());
        Some(Config {
            file: PathBuf::new(),
            name: keys.name,
            data_dir,
            connections,
            streams,
            tables,
            outputs,
            uplinks,
            rules,
            buffer,
            management,
            warnings,
        })
    }

    fn tables<'t>(&mut self, root: &mut Table<'t>, section: &str) -> Vec<Table<'t>> {
        let header = format!("[{section}.NAME]");
        root.take_table(section, &header, self.report)
            .map(|table| table.into_tables(self.report))
            .unwrap_or_default()
    }

    fn or_empty<'t>(&mut self, root: &mut Table<'t>, section: &str) -> Table<'t> {
        root.take_table(section, &format!("[{section}]"), self.report).unwrap_or_else(|| root.take_keys(&[]))
    }

    fn connections(&mut self, tables: &[Table<'_>]) -> BTreeMap<String, ConnectionConfig> {
        let mut connections = BTreeMap::new();
        for table in tables {
            if let Err(why) = names::check_identifier(table.name()) {
                self.report.error(
                    &table.span(),
                    format!("\"{}\" cannot be a connection's name", table.name()),
                    why,
                );
            }
            if let Some(config) = self.connection(table) {
                connections.insert(table.name().to_owned(), config);
            }
        }
        self.check_beside(&connections, tables);
        connections
    }

    fn connection(&mut self, table: &Table<'_>) -> Option<ConnectionConfig> {
        let kind = self.declared_kind(table);
        self.kinds.insert(table.name().to_owned(), kind);
        let mut own_keys = table.clone();
        own_keys.take_keys(&["kind"]);
        let mut config = ConnectionConfig::read(kind?, &mut own_keys.reader(&["kind"], self.report))?;
        self.review(table, |review| config.check(review));
        Some(config)
    }

    /// What connections must not have in common.
    fn check_beside(&mut self, connections: &BTreeMap<String, ConnectionConfig>, tables: &[Table<'_>]) {
        let mut earlier = Vec::new();
        for table in tables {
            let Some((name, config)) = connections.get_key_value(table.name()) else { continue };
            self.review(table, |review| config.check_beside(name, &earlier, review));
            earlier.push((name.as_str(), config));
        }
    }

    /// Reports what a review of `table` finds.
    fn review(&mut self, table: &Table<'_>, of: impl FnOnce(&mut Review<'_>)) {
        let title = table.title();
        let mut review = Review::new(&title, self.base_dir, table.written_empty());
        of(&mut review);
        self.report_remarks(table, review.remarks);
    }

    fn report_remarks(&mut self, table: &Table<'_>, remarks: Vec<Remark>) {
        let refused = self.report.places();
        for Remark { severity, at, message, help, is_absence } in remarks {
            let span = match &at {
                At::Table => table.span(),
                At::Key(keys) => table.key_span_of(&as_path(keys)),
                At::Value(keys) => table.span_of(&as_path(keys)),
            };
            // What was refused is as if it was not written.
            let follows = is_absence
                && match &at {
                    At::Table => table.spans().any(|span| self.report.is_within(&span, &refused)),
                    At::Key(_) => false,
                    At::Value(_) => self.report.is_within(&span, &refused),
                };
            if follows {
                continue;
            }
            match severity {
                Severity::Error => self.report.error(&span, message, help),
                Severity::Warning => self.report.warning(&span, message, help),
            }
        }
    }

    /// The kind that a connection's table names. A wrong name is reported, and read as the nearest one.
    fn declared_kind(&mut self, table: &Table<'_>) -> Option<Kind> {
        if let Some(name) = table.text("kind") {
            return Kind::from_name(name).or_else(|| {
                let help = did_you_mean(name, &Kind::ALL.map(Kind::name));
                self.report.error(
                    &table.span_of(&["kind"]),
                    format!("there is no kind of connection called \"{name}\""),
                    help,
                );
                nearest(name, Kind::ALL.map(Kind::name)).and_then(Kind::from_name)
            });
        }
        let help = format!("write `kind = \"{}\"`", Kind::ALL.map(Kind::name).join("\"` or `kind = \""));
        if table.contains("kind") {
            self.report.error(&table.span_of(&["kind"]), "expected text in quotes for `kind`", help);
        } else {
            self.report.error(&table.span(), format!("the key `kind` is missing in {}", table.title()), help);
        }
        None
    }

    /// Rules name streams, tables and outputs, so a name must mean one thing.
    fn check_targets(&mut self, streams: &[Table<'_>], tables: &[Table<'_>], outputs: &[Table<'_>]) {
        let named = streams
            .iter()
            .map(|table| (table, "a stream's"))
            .chain(tables.iter().map(|table| (table, "a table's")));
        let named = named.chain(outputs.iter().map(|table| (table, "an output's")));
        for (table, whose) in named {
            if let Err(why) = names::check_target(table.name()) {
                self.report.error(&table.span(), format!("\"{}\" cannot be {whose} name", table.name()), why);
            }
        }
        for other in tables.iter().chain(outputs) {
            let before = streams
                .iter()
                .chain(tables)
                .find(|before| before.name() == other.name() && before.span() != other.span());
            let Some(before) = before.filter(|_| tables.iter().any(|table| table.name() == other.name()))
            else {
                continue;
            };
            let message = format!(
                "`{}` is already the name of {} in line {}",
                other.name(),
                before.title(),
                self.report.line_of(&before.span())
            );
            self.report.error(
                &other.span(),
                message,
                "rules know both by name: give this one another".to_owned(),
            );
        }
        for output in outputs {
            let Some(stream) = streams.iter().find(|stream| stream.name() == output.name()) else { continue };
            let message = format!(
                "`{}` is already the name of the stream in line {}",
                output.name(),
                self.report.line_of(&stream.span())
            );
            self.report.error(
                &output.span(),
                message,
                "rules write to both by name: give the output another one".to_owned(),
            );
        }
    }

    /// The kind of the connections that `table` names. An unknown name is reported, and read as the nearest
    /// one, so that the rest of the table can be checked too.
    fn kind_of(&mut self, table: &Table<'_>) -> Option<Kind> {
        let named = connections_of(table);
        let Some((first, _)) = named.first() else {
            if self.kinds.is_empty() {
                let help =
                    "declare one in [connections.NAME], and name it here: `connection = \"NAME\"`".to_owned();
                self.report.error(
                    &table.span_of(&["connection"]),
                    format!("{} needs a connection, and there is none", table.title()),
                    help,
                );
            }
            return self.kinds.values().flatten().next().copied();
        };
        let mut kind = None;
        for (name, span) in &named {
            self.check_connection_name(name, span);
            let known = self.kinds.keys().map(String::as_str);
            let found = nearest(name, known).and_then(|name| self.kinds.get(name).copied().flatten());
            if kind.is_some() && found.is_some() && kind != found {
                let help = "a list of connections is for devices of one kind that hang on several lines";
                self.report.error(
                    span,
                    format!("`{name}` is another kind of connection than `{first}`"),
                    help.to_owned(),
                );
            }
            kind = kind.or(found);
        }
        kind
    }

    fn check_connection_name(&mut self, name: &str, span: &Range<usize>) {
        if self.kinds.contains_key(name) {
            return;
        }
        let known: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
        let help =
            did_you_mean(name, &known).unwrap_or_else(|| format!("declare it in [connections.{name}]"));
        self.report.error(span, format!("there is no connection `{name}`"), help);
    }

    fn stream(
        &mut self,
        table: &Table<'_>,
        connections: &BTreeMap<String, ConnectionConfig>,
    ) -> Option<Stream> {
        if !table.contains("connection") {
            if !table.contains("fields") {
                let help =
                    "name the `connection` that feeds it, or declare the `fields` that rules write to it"
                        .to_owned();
                self.report.error(
                    &table.span(),
                    format!("{} has neither `connection` nor `fields`", table.title()),
                    help,
                );
                return None;
            }
            let stream: DerivedStream = table.read(&["connection"], self.report)?;
            let instead = "declare at least one field";
            self.review(table, |review| check_fields(stream.fields.keys(), instead, review));
            return Some(Stream::Derived { fields: stream.fields });
        }
        let kind = self.kind_of(table)?;
        let mut stream = StreamConfig::read(kind, &mut table.clone().reader(&[], self.report))?;
        let named = stream.connections().to_vec();
        let named: Vec<_> = named.iter().filter_map(|name| connections.get(name)).collect();
        self.review(table, |review| stream.check(&named, review));
        Some(Stream::Input(stream))
    }

    fn reference_table(&mut self, table: &Table<'_>) -> Option<ReferenceTable> {
        let TableKeys { path, fields, table: of, query, max_size } = table.read(&[], self.report)?;
        if table.is_written_empty("fields") {
            let help = "leave it out: then the file says which columns there are".to_owned();
            self.report.error(
                &table.key_span_of(&["fields"]),
                format!("`fields` is empty in {}", table.title()),
                help,
            );
        }
        let extension =
            path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
        let kind = match (extension.as_str(), of, query) {
            ("csv", None, None) => TableKind::Csv,
            ("parquet", None, None) => TableKind::Parquet,
            ("csv" | "parquet", ..) => {
                let key = if table.contains("table") { "table" } else { "query" };
                self.report.error(
                    &table.span_of(&[key]),
                    format!("`{key}` is for SQLite databases, and {} is one table", path.display()),
                    "leave it out".to_owned(),
                );
                return None;
            }
            ("db" | "sqlite" | "sqlite3", Some(of), None) => {
                TableKind::Sqlite { query: format!("SELECT * FROM \"{}\"", of.replace('"', "\"\"")) }
            }
            ("db" | "sqlite" | "sqlite3", None, Some(query)) => TableKind::Sqlite { query },
            ("db" | "sqlite" | "sqlite3", ..) => {
                let message = format!("{} needs either `table` or `query`", table.title());
                self.report.error(
                    &table.span_of(&["path"]),
                    message,
                    "name the table of the database: `table = \"NAME\"`".to_owned(),
                );
                return None;
            }
            (other, ..) => {
                let what = format!("`.{other}` says nothing about the format of {}", path.display());
                let help =
                    "a table is a CSV file (`.csv`), a Parquet file (`.parquet`) or in a SQLite database \
                    (`.db`, `.sqlite`, `.sqlite3`)"
                        .to_owned();
                self.report.error(&table.span_of(&["path"]), what, help);
                return None;
            }
        };
        Some(ReferenceTable { path: self.base_dir.join(path), kind, fields, max_size })
    }

    fn output(
        &mut self,
        mut table: Table<'_>,
        connections: &BTreeMap<String, ConnectionConfig>,
    ) -> Option<Output> {
        let kind = self.kind_of(&table);
        let queue_table = table.take_keys(&OUTPUT_KEYS);
        let queue: Option<OutputKeys> = queue_table.read(&[], self.report);
        if let Some(queue) = &queue {
            self.check_at_most(queue.queue, LONGEST_QUEUE, "queue", &queue_table);
        }
        let mut config = OutputConfig::read(kind?, &mut table.clone().reader(&OUTPUT_KEYS, self.report))?;
        let connection = connections.get(config.connection());
        self.review(&table, |review| config.check(connection, review));
        let keys = queue?;
        let contract = self.contract(keys.contract, &queue_table, &config)?;
        Some(Output { queue: keys.queue, when_full: keys.when_full, contract, config })
    }

    /// Whether what a contract names is there, and its interlocks are conditions.
    fn check_contract(
        &mut self,
        table: &Table<'_>,
        output: &Output,
        known: &StreamsOfContracts,
        outputs: &[Table<'_>],
    ) {
        let Some(contract) = &output.contract else { return };
        let names: Vec<&str> = outputs.iter().map(Table::name).filter(|name| *name != table.name()).collect();
        for partner in &contract.never_with {
            let span = table.span_of(&["contract", "never_with"]);
            match outputs.iter().find(|other| other.name() == &**partner) {
                None => {
                    let what = format!("there is no output `{partner}`");
                    self.report.error(&span, what, did_you_mean(partner, &names));
                }
                Some(other) if other.name() == table.name() => {
                    self.report.error(&span, "an output is always on together with itself", None);
                }
                Some(other) if !other.contains("contract") || other.text("contract").is_some() => {
                    let what = format!("`{partner}` has no contract, so nobody knows whether it is off");
                    self.report.error(&span, what, "give it one".to_owned());
                }
                Some(_) => {}
            }
        }
        for interlock in &contract.interlocks {
            let span = table.span_of(&["contract", "interlock", "when"]);
            match Condition::compile(&interlock.when, &known.columns) {
                Ok(_) | Err(ConditionError::Waiting(_)) => {}
                Err(ConditionError::Wrong { message, help, .. }) => self.report.error(&span, message, help),
            }
        }
        let from = contract.read_back.iter().flat_map(|read_back| &read_back.from);
        for (column, (stream, shows)) in from {
            let span = table.span_of(&["contract", "read_back", "from", column]);
            self.check_shown(&span, stream, shows, known);
        }
        if let MaxInputAge::Some(ages) = &contract.max_input_age {
            for stream in ages.keys().filter(|stream| !known.columns.contains_key(&***stream)) {
                let span = table.span_of(&["contract", "max_input_age", stream]);
                let help = did_you_mean(stream, &known.names());
                self.report.error(&span, format!("there is no stream `{stream}`"), help);
            }
            for stream in ages.keys().filter(|stream| known.hides_age.contains(&***stream)) {
                let span = table.span_of(&["contract", "max_input_age", stream]);
                let what = format!("a message of `{stream}` that was kept for the box counts as new");
                self.report.warning(&span, what, StreamConfig::AGE_ADVICE.to_owned());
            }
        }
    }

    fn check_shown(&mut self, span: &Range<usize>, stream: &str, shows: &str, known: &StreamsOfContracts) {
        match known.columns.get(stream) {
            None => {
                let help = did_you_mean(stream, &known.names());
                self.report.error(span, format!("there is no stream `{stream}`"), help);
            }
            Some(Some(schema)) if schema.column_with_name(shows).is_none() => {
                let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let help = did_you_mean(shows, &columns);
                self.report.error(span, format!("`{stream}` has no column `{shows}`"), help);
            }
            Some(_) => {}
        }
    }

    /// What becomes of an output when the box is killed, as far as anybody can tell.
    fn check_end(&mut self, table: &Table<'_>, output: &Output, connection: Option<&ConnectionConfig>) {
        let (Some(contract), Some(connection)) = (&output.contract, connection) else { return };
        let span = table.key_span_of(&["contract"]);
        if contract.expiry.is_some()
            && let Some(problem) = output.config.refuses_expiry(connection)
        {
            self.report.error(&span, problem.what, problem.help);
        }
        let fails_safe = matches!(contract.failsafe, Rest::Values(_)) && contract.kind == ContractKind::State;
        if fails_safe && contract.refresh.is_none() && !output.config.falls_back_by_itself(connection) {
            let what = format!(
                "when the box is killed or loses power, nothing brings `{}` to its failsafe values",
                table.name()
            );
            let help = "give the device a watchdog of its own, and write `refresh` for it to hear the box; or \
                give the connection a last will, if it has such a thing";
            self.report.warning(&span, what, help.to_owned());
        }
    }

    /// What an output promises; `Some(None)`: nothing, and that may be.
    fn contract(
        &mut self,
        written: Option<WordOr<ContractTable>>,
        table: &Table<'_>,
        config: &OutputConfig,
    ) -> Option<Option<Contract>> {
        let help = "write what it promises whatever rules say, in [outputs.NAME.contract] with `expiry` and \
            `failsafe`, or `contract = \"none\"`";
        match written {
            // What is wrong with it was said.
            None if table.contains("contract") => None,
            None if config.moves_machines() => {
                let what = format!("{} moves a machine, and has no contract", table.title());
                self.report.error(&table.span(), what, help.replace("NAME", table.name()));
                None
            }
            None => Some(None),
            Some(WordOr::Word(word)) if word == "none" => Some(None),
            Some(WordOr::Word(word)) => {
                let what = format!("\"{word}\" is no contract");
                self.report.error(&table.span_of(&["contract"]), what, help.replace("NAME", table.name()));
                None
            }
            Some(WordOr::Table(terms)) => {
                let facts = Facts {
                    columns: config.columns(),
                    key: config.instance_columns(),
                    is_readable: config.is_readable(),
                    reads_back: config.reads_back(),
                };
                let (contract, problems) = terms.check(&facts);
                for contract::Problem { at, what, help, is_warning } in problems {
                    let keys: Vec<&str> =
                        ["contract"].into_iter().chain(at.iter().map(String::as_str)).collect();
                    let span = table.key_span_of(&keys);
                    if is_warning {
                        self.report.warning(&span, what, help);
                    } else {
                        self.report.error(&span, what, help);
                    }
                }
                contract.map(Some)
            }
        }
    }

    /// What is in `[uplink]`, or in the tables of `[uplinks]`.
    fn uplinks(
        &mut self,
        root: &mut Table<'_>,
        connections: &BTreeMap<String, ConnectionConfig>,
    ) -> BTreeMap<String, Uplink> {
        let only = root.take_table(names::UPLINK, "[uplink]", self.report);
        let several = self.tables(root, "uplinks");
        if let (Some(only), Some(first)) = (&only, several.first()) {
            let message = format!("there is [uplink] in line {} already", self.report.line_of(&only.span()));
            self.report.error(
                &first.span(),
                message,
                "give that one a name too, such as [uplinks.uplink]".to_owned(),
            );
        }
        for table in &several {
            if let Err(why) = names::check_identifier(table.name()) {
                self.report.error(
                    &table.span(),
                    format!("\"{}\" cannot be an uplink's name", table.name()),
                    why,
                );
            }
        }
        only.into_iter()
            .chain(several)
            .filter_map(|table| Some((table.name().to_owned(), self.uplink(table, connections)?)))
            .collect()
    }

    fn uplink(
        &mut self,
        mut table: Table<'_>,
        connections: &BTreeMap<String, ConnectionConfig>,
    ) -> Option<Uplink> {
        let common = table.take_keys(&UPLINK_KEYS);
        let keys: Option<UplinkKeys> = common.read(&[], self.report);
        if let Some(keys) = &keys {
            self.check_at_most(keys.in_flight, MOST_IN_FLIGHT, "in_flight", &common);
            if common.is_written_empty("rules") {
                let help =
                    "leave `rules` out to send what all rules write, or the whole table to send nothing"
                        .to_owned();
                self.report.error(
                    &common.span_of(&["rules"]),
                    format!("`rules` is empty in {}", table.title()),
                    help,
                );
            }
        }
        if let Some(name) = table.text("connection") {
            self.check_connection_name(name, &table.span_of(&["connection"]));
        }
        let (title, mut own) = (table.title(), table.clone());
        let mut review = Review::new(&title, self.base_dir, table.written_empty());
        let mut config = UplinkConfig::read(&mut own.reader(&UPLINK_KEYS, self.report), &mut review);
        if let Some(config) = &mut config {
            let connection = config.connection().and_then(|name| connections.get(name));
            config.check(connection, &mut review);
        }
        self.report_remarks(&table, review.remarks);
        let UplinkKeys { rules, in_flight, backlog_rate } = keys?;
        Some(Uplink { rules, in_flight, backlog_rate, config: config? })
    }

    fn rules(&mut self, table: &Table<'_>) -> Option<Rules> {
        let keys: RulesTable = table.read(&[], self.report)?;
        self.check_at_most(keys.workers, MOST_WORKERS, "workers", table);
        let dir = self.base_dir.join(&keys.dir);
        if table.contains("dir") && !dir.is_dir() {
            let help =
                "make it with `mkdir`, or correct the path; relative paths start at the directory of the \
                configuration file"
                    .to_owned();
            self.report.error(
                &table.span_of(&["dir"]),
                format!("`dir` names {}, which is not a directory", dir.display()),
                help,
            );
        }
        if keys.time_limit < SHORTEST_TIME_LIMIT {
            let (limit, shortest) = (keys.time_limit, SHORTEST_TIME_LIMIT);
            self.report.error(
                &table.span_of(&["time_limit"]),
                format!("`time_limit` must be at least {shortest}, and is {limit}"),
                "a machine that is busy for a moment would stop rules that do nothing wrong".to_owned(),
            );
        }
        if keys.require_signed_plugins && keys.trusted_keys.is_empty() {
            self.report.error(
                &table.span_of(&["require_signed_plugins"]),
                "plugins must be signed, and there is no key that is trusted".to_owned(),
                "name public keys with `trusted_keys = [\"RW..\"]`".to_owned(),
            );
        }
        let RulesTable { dir: _, workers, time_limit, trusted_keys, require_signed_plugins } = keys;
        Some(Rules { dir, workers, time_limit, trusted_keys, require_signed_plugins })
    }

    fn buffer(&mut self, keys: BufferTable, table: &Table<'_>, data_dir: &Path) -> Buffer {
        let is_refused = |key: &str| self.report.has_error_at(&table.span_of(&[key]));
        let (size_is_refused, durability_is_refused) = (is_refused("max_size"), is_refused("durability"));
        self.check_at_most(keys.queue, LONGEST_QUEUE, "queue", table);
        if keys.max_size < SMALLEST_BUFFER {
            let message = format!("`max_size` must be at least {SMALLEST_BUFFER}, and is {}", keys.max_size);
            self.report.error(&table.span_of(&["max_size"]), message, None);
        }
        if keys.reserve >= keys.max_size && !size_is_refused {
            let message =
                format!("`reserve` ({}) must be smaller than `max_size` ({})", keys.reserve, keys.max_size);
            self.report.error(
                &table.span_of(&["reserve"]),
                message,
                "it is the part of it that is kept for alarms".to_owned(),
            );
        }
        if matches!(keys.when_full, BufferWhenFull::Block) {
            let what = "when the buffer is full, rules that write to the uplink wait, and in the end all \
                streams and outputs wait with them";
            let help = "write \"drop_oldest\" or \"thin_out\", which go on and tell the cloud of the gap, \
                unless to stand still is better";
            self.report.warning(&table.span_of(&["when_full"]), what, help.to_owned());
        }
        let path =
            keys.path.as_ref().map_or_else(|| data_dir.join("buffer.db"), |path| self.base_dir.join(path));
        if path.is_dir() {
            let message = format!("`path` names {}, which is a directory", path.display());
            self.report.error(&table.span_of(&["path"]), message, "name the database file itself".to_owned());
        }
        if keys.commit_every > LONGEST_COMMIT {
            let message = format!("`commit_every` is at most {LONGEST_COMMIT}, and is {}", keys.commit_every);
            let help =
                "messages are not acknowledged before; see `durability` to spare the disk more".to_owned();
            self.report.error(&table.span_of(&["commit_every"]), message, help);
        }
        match (keys.durability, keys.sync_every) {
            _ if durability_is_refused => {}
            (Durability::Full, Some(_)) => {
                let help =
                    "add `durability = \"normal\"`, if a power cut may lose what was stored in that time"
                        .to_owned();
                self.report.error(
                    &table.key_span_of(&["sync_every"]),
                    "`sync_every` has no use with `durability = \"full\"`",
                    help,
                );
            }
            (Durability::Normal, Some(every)) if every < SHORTEST_SYNC => {
                let message = format!("`sync_every` must be at least {SHORTEST_SYNC}, and is {every}");
                self.report.error(
                    &table.span_of(&["sync_every"]),
                    message,
                    "for less, write `durability = \"full\"`".to_owned(),
                );
            }
            _ => {}
        }
        if keys.snapshot_every < SHORTEST_SNAPSHOT {
            let message = format!(
                "`snapshot_every` must be at least {SHORTEST_SNAPSHOT}, and is {}",
                keys.snapshot_every
            );
            self.report.error(&table.span_of(&["snapshot_every"]), message, None);
        }
        if let Some(ttl) = keys.ttl.filter(|ttl| *ttl < SHORTEST_TTL) {
            let message = format!("`ttl` must be at least {SHORTEST_TTL}, and is {ttl}");
            self.report.error(
                &table.span_of(&["ttl"]),
                message,
                "leave it out to keep rows until an uplink has taken them".to_owned(),
            );
        }
        keys.at(path)
    }

    fn check_at_most(&mut self, value: NonZeroUsize, most: usize, key: &str, table: &Table<'_>) {
        if value.get() > most {
            self.report.error(
                &table.span_of(&[key]),
                format!("`{key}` is at most {most}, and is {value}"),
                None,
            );
        }
    }
}

/// The names under `connection`, one or a list, and where each is written.
fn connections_of<'t>(table: &'t Table<'_>) -> Vec<(&'t str, Range<usize>)> {
    match table.text("connection") {
        Some(name) => vec![(name, table.span_of(&["connection"]))],
        None => table.texts("connection"),
    }
}

fn as_path(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}
