//! The thread on a real directory. Tests wait for the changes it sends, never for time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::files::by_name;
use super::*;
use crate::sequence::change::Change;
use crate::sequence::edit::Edit;
use crate::sequence::verdict::Verdict;
use crate::sequence::version::RuleFile;
use crate::status::Status;
use arrow::datatypes::Schema;
use std::io::Write as _;
use tidegate_core::schema::ts_field;
use tidegate_rules::wasm::unpack;
use tidegate_rules::{Catalog, Language, OutputColumns};

fn catalog() -> Catalog {
    Catalog {
        inputs: [("tank".to_owned(), Some(Arc::new(Schema::new(vec![ts_field()]))))].into(),
        outputs: [("lamp".to_owned(), OutputColumns::default())].into(),
        ..Catalog::default()
    }
}

struct Watched {
    dir: tempfile::TempDir,
    changes: mpsc::Receiver<Edited>,
    handle: RulesHandle,
    status: Arc<Status>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watched {
    fn start(files: &[(&str, &str)]) -> Self {
        Self::start_after(&[], files)
    }

    /// A box whose journal says that `rules` ran.
    fn start_after(rules: &[(&str, &str)], files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        let status = Arc::new(Status::default());
        let mut book = RuleBook::new(catalog(), 1, Arc::clone(&status)).quiet();
        rules.iter().for_each(|(name, text)| {
            drop(book.put(&Arc::from(*name), name, &Source::new(Language::Sql, text), &Arc::from(*name)))
        });
        let (rules, handle) = RulesDir::new(dir.path(), TableFiles::default(), book);
        let (tell, changes) = mpsc::channel(5000);
        let (loaded, ready) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let thread = std::thread::spawn(move || runtime.block_on(rules.run(tell, loaded)));
        ready.blocking_recv().unwrap();
        Self { dir, changes, handle, status, thread: Some(thread) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next change: what was done, to which rule, and from which rule it inherits.
    fn next(&mut self) -> (&'static str, String, String) {
        let change = loop {
            // A rename has one change for two edits.
            if let Some((_, change)) = self.changes.blocking_recv().expect("the thread runs").changes.pop() {
                break change;
            }
        };
        match change {
            Change::Load(load) => ("load", load.version.name.to_string(), load.inherits.to_string()),
            Change::Remove(name) => ("remove", name.to_string(), String::new()),
            Change::Table(name, _) => ("table", name.to_string(), String::new()),
            Change::Give(..) | Change::Take(..) => panic!("there is one worker"),
        }
    }

    fn loaded(&mut self, name: &str) {
        assert_eq!(self.next(), ("load", name.to_owned(), name.to_owned()));
    }

    /// Has it look again and again.
    fn look_until(&self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            drop(self.handle.ask.try_send(Request::Look));
            std::thread::yield_now();
        }
    }

    fn nothing_more(mut self) {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap();
        while let Some(rest) = self.changes.blocking_recv() {
            assert_eq!(rest.changes.len(), 0, "{:?}", rest.edit);
        }
    }
}

fn lamp(x: i32) -> String {
    format!("INSERT INTO lamp SELECT {x} AS x FROM tank")
}

#[test]
fn new_changed_and_deleted_files_are_taken() {
    let mut watched =
        Watched::start(&[("a.sql", &lamp(1)), (".hidden.sql", "x"), ("notes.txt", "x"), ("a.sql~", "x")]);
    watched.loaded("a");
    fs::write(watched.path("b.sql"), lamp(2)).unwrap();
    watched.loaded("b");
    fs::write(watched.path("b.sql"), lamp(3)).unwrap();
    watched.loaded("b");
    fs::remove_file(watched.path("a.sql")).unwrap();
    assert_eq!(watched.next(), ("remove", "a".into(), String::new()));
    watched.nothing_more();
}

#[test]
fn a_version_that_could_not_start_is_a_wrong_one() {
    let mut watched = Watched::start(&[("a.sql", &lamp(1))]);
    watched.loaded("a");
    fs::write(watched.path("a.sql"), lamp(2)).unwrap();
    watched.loaded("a");
    let source = |x| Source::new(Language::Sql, lamp(x));
    let (rule, version, reason) = ("a".into(), source(2).sha256().to_string(), "why".into());
    let goes_on = Some(RuleFile { path: "a.sql".into(), source: source(1) });
    let verdict = Verdict { rule, version, at: 1, reason, is_start: true };
    watched.handle.refused(Edit::Refuse { verdict, goes_on });
    watched.look_until(|watched| watched.status.rules.of("a").refused.is_some());
    fs::write(watched.path("a.sql"), lamp(3)).unwrap();
    watched.loaded("a");
    assert!(!watched.status.rules.of("a").refused.is_some());
    watched.nothing_more();
}

#[test]
fn a_file_that_is_being_written_is_left_alone_until_it_is_closed() {
    let mut watched = Watched::start(&[]);
    let text = lamp(80);
    let mut file = fs::File::create(watched.path("slow.sql")).unwrap();
    // So far it would be a good rule, with another number.
    file.write_all(text.split('0').next().unwrap().as_bytes()).unwrap();
    file.sync_all().unwrap();
    fs::write(watched.path("other.sql"), lamp(1)).unwrap();
    watched.loaded("other");
    file.write_all(b"0 AS x FROM tank").unwrap();
    drop(file);
    watched.loaded("slow");
    assert!(!watched.status.rules.of("slow").refused.is_some());
    watched.nothing_more();
}

#[test]
fn an_editor_that_moves_the_old_file_away_first_replaces_the_rule_without_removing_it() {
    let mut watched = Watched::start(&[("a.sql", &lamp(1))]);
    watched.loaded("a");
    fs::rename(watched.path("a.sql"), watched.path("a.sql~")).unwrap();
    fs::write(watched.path("a.sql"), lamp(2)).unwrap();
    watched.loaded("a");
    fs::write(watched.path(".a.sql.Xy12"), lamp(3)).unwrap();
    fs::rename(watched.path(".a.sql.Xy12"), watched.path("a.sql")).unwrap();
    watched.loaded("a");
    watched.nothing_more();
}

#[test]
fn a_renamed_file_is_the_same_rule_under_another_name() {
    let mut watched = Watched::start(&[("old.sql", &lamp(1))]);
    watched.loaded("old");
    fs::rename(watched.path("old.sql"), watched.path("new.sql")).unwrap();
    assert_eq!(watched.next(), ("load", "new".into(), "old".into()));
    watched.nothing_more();
}

#[test]
fn a_renamed_file_that_is_wrong_takes_the_version_that_runs_along() {
    const WRONG: &str = "SELECT nothing FROM nowhere";
    let mut watched = Watched::start(&[("old.sql", &lamp(1))]);
    watched.loaded("old");
    fs::write(watched.path("old.sql"), WRONG).unwrap();
    // What was written before it was looked at, too.
    fs::write(watched.path("zz.sql"), lamp(5)).unwrap();
    watched.loaded("zz");
    fs::rename(watched.path("old.sql"), watched.path("new.sql")).unwrap();
    assert_eq!(watched.next(), ("load", "new".into(), "old".into()));
    fs::write(watched.path("new.sql"), lamp(2)).unwrap();
    watched.loaded("new");
    watched.nothing_more();
    // What the journal knows after the renaming is the good text under the new name: a restart changes
    // nothing.
    let watched = Watched::start_after(&[("new", &lamp(1))], &[("new.sql", WRONG)]);
    assert!(watched.status.rules.of("new").refused.get().is_some());
    watched.nothing_more();
}

#[test]
fn what_is_no_file_is_refused_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.sql");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::create_dir(dir.path().join("folder.sql")).unwrap();
    for name in ["pipe.sql", "folder.sql"] {
        let refused = read(&dir.path().join(name)).map(|_| ()).unwrap_err();
        assert_eq!(refused.message, "the rule is no file");
    }
}

#[test]
fn a_thousand_files_at_once_are_all_taken() {
    let mut watched = Watched::start(&[]);
    (0..1000).for_each(|n| fs::write(watched.path(&format!("r{n}.sql")), lamp(n)).unwrap());
    let names: HashSet<String> = (0..1000).map(|_| watched.next().1).collect();
    assert_eq!(names.len(), 1000);
    (0..1000).for_each(|n| fs::remove_file(watched.path(&format!("r{n}.sql"))).unwrap());
    let gone: HashSet<String> = (0..1000).map(|_| watched.next().1).collect();
    assert_eq!(gone, names);
    watched.nothing_more();
}

#[test]
fn a_directory_that_is_replaced_is_watched_again() {
    let mut watched = Watched::start(&[("a.sql", &lamp(1))]);
    watched.loaded("a");
    let dir = watched.dir.path().to_owned();
    fs::rename(&dir, dir.with_extension("away")).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(watched.path("a.sql"), lamp(1)).unwrap();
    fs::write(watched.path("b.sql"), lamp(2)).unwrap();
    watched.loaded("b");
    fs::write(watched.path("b.sql"), lamp(3)).unwrap();
    watched.loaded("b");
    fs::remove_dir_all(dir.with_extension("away")).unwrap();
    watched.nothing_more();
}

#[test]
fn two_files_of_one_name_are_refused_and_both_are_named() {
    let paths = ["r/a.sql", "r/a.other", "r/b.sql", "r/.c.sql", "r/d.txt"].map(PathBuf::from).into();
    let endings = ["sql", "other"].map(OsStr::new);
    let listed = by_name(paths, |path| path.extension().is_some_and(|ending| endings.contains(&ending)));
    assert_eq!(listed.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(listed["b"], [PathBuf::from("r/b.sql")]);
    assert_eq!(
        ambiguous("a", &listed["a"]).to_string(),
        "r/a.other: `r/a.other` and `r/a.sql` would both be the rule `a`; give one of them another name, or \
        delete it"
    );
}

/// A directory without a thread: what is looked at is said by the test.
struct Unwatched {
    dir: tempfile::TempDir,
    rules: RulesDir,
    status: Arc<Status>,
}

impl Unwatched {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Arc::new(Status::default());
        let book = RuleBook::new(catalog(), 1, Arc::clone(&status)).quiet();
        let (rules, _) = RulesDir::new(dir.path(), TableFiles::default(), book);
        Self { dir, rules, status }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Looks at the file of rule `name`, and says which rules were put, and from which they inherit.
    fn take(&mut self, name: &str) -> Vec<(String, String)> {
        let missing = self.rules.note_missing(&list(self.dir.path()).unwrap());
        let mut changes = Vec::new();
        self.rules.take(&Arc::from(name), &self.path(&format!("{name}.sql")), &missing, &mut changes);
        let put = changes.into_iter().filter_map(|change| match change.edit? {
            Edit::Put { name, inherits, .. } => Some((name, inherits)),
            other => panic!("{other:?}"),
        });
        put.collect()
    }

    fn refused(&self, name: &str) -> bool {
        self.status.rules.of(name).refused.is_some()
    }
}

fn put(name: &str, inherits: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), inherits.to_owned())]
}

#[test]
fn a_rule_with_two_files_keeps_running_and_goes_on_when_one_is_gone() {
    let mut dir = Unwatched::new();
    fs::write(dir.path("a.sql"), lamp(1)).unwrap();
    assert_eq!(dir.take("a"), put("a", "a"));
    let (name, both) = (Arc::from("a"), [dir.path("a.sql"), dir.path("a.other")]);
    dir.rules.refuse_doubles(&name, &both);
    assert!(dir.status.rules.of("a").refused.get().unwrap().1.contains("would both be the rule `a`"));
    assert_eq!(dir.rules.book.worker_of("a"), Some(0));
    // It is said once.
    dir.status.rules.of("a").refused.clear();
    dir.rules.refuse_doubles(&name, &both);
    assert!(!dir.refused("a"));
    assert_eq!(dir.take("a"), put("a", "a"));
    assert!(dir.rules.book.wrong().is_empty());
    assert!(dir.rules.book.runs("a", &Source::new(Language::Sql, lamp(1))));
}

#[test]
fn a_rule_whose_file_cannot_be_read_for_a_moment_goes_on_under_its_new_name() {
    let mut dir = Unwatched::new();
    fs::write(dir.path("a.sql"), lamp(1)).unwrap();
    assert_eq!(dir.take("a"), put("a", "a"));
    // A folder cannot be read, by root neither.
    fs::rename(dir.path("a.sql"), dir.path("kept")).unwrap();
    fs::create_dir(dir.path("a.sql")).unwrap();
    assert_eq!(dir.take("a"), []);
    assert!(dir.refused("a"));
    fs::remove_dir(dir.path("a.sql")).unwrap();
    fs::rename(dir.path("kept"), dir.path("b.sql")).unwrap();
    assert_eq!(dir.take("b"), put("b", "a"));
    assert!(!dir.refused("b") && dir.rules.book.wrong().is_empty());
}

#[test]
fn a_file_that_is_renamed_while_nobody_can_read_it_takes_the_version_that_runs_along() {
    let mut dir = Unwatched::new();
    fs::write(dir.path("a.sql"), lamp(1)).unwrap();
    assert_eq!(dir.take("a"), put("a", "a"));
    let too_long = lamp(1) + " ".repeat(1 << 20).as_str();
    fs::write(dir.path("a.sql"), too_long).unwrap();
    assert_eq!(dir.take("a"), []);
    fs::rename(dir.path("a.sql"), dir.path("b.sql")).unwrap();
    assert_eq!(dir.take("b"), put("b", "a"));
    assert!(dir.refused("b") && dir.rules.book.worker_of("a").is_none());
    // Another file that cannot be read is another rule.
    fs::create_dir(dir.path("c.sql")).unwrap();
    assert_eq!(dir.take("c"), []);
    fs::write(dir.path("b.sql"), lamp(1)).unwrap();
    assert_eq!(dir.take("b"), put("b", "b"));
    assert!(!dir.refused("b"));
}

#[test]
fn files_that_are_no_rules_are_refused_with_a_reason() {
    let watched = Watched::start(&[("two words.sql", &lamp(1)), ("good.sql", &lamp(1))]);
    fs::write(watched.path("latin1.sql"), b"-- gr\xfc\xdfe").unwrap();
    let dir = watched.dir.path().to_owned();
    let book = RuleBook::new(Catalog::default(), 1, Arc::default()).quiet();
    let (book, _) = RulesDir::load(&dir, &mut TableFiles::default(), book).unwrap();
    let wrong: Vec<String> = book.wrong().iter().map(ToString::to_string).collect();
    assert!(wrong.iter().any(|w| w.contains("latin1.sql: the rule is not UTF-8 text (byte 5)")), "{wrong:?}");
    assert!(wrong.iter().any(|w| w.contains("`two words` cannot name a rule")), "{wrong:?}");
    let missing = RulesDir::load(
        &dir.join("none"),
        &mut TableFiles::default(),
        RuleBook::new(Catalog::default(), 1, Arc::default()),
    );
    assert!(missing.err().unwrap().to_string().contains("create it, or set `dir` in [rules]"));
}

#[test]
fn a_rule_of_an_earlier_run_that_is_wrong_by_now_goes_with_its_file() {
    let watched = Watched::start_after(&[("gone", "INSERT INTO horn SELECT ts FROM tank")], &[]);
    assert!(watched.status.rules.get("gone").is_none());
    watched.nothing_more();
}

#[test]
fn a_directory_that_is_gone_is_told_until_it_is_back() {
    let mut watched = Watched::start(&[("a.sql", &lamp(1))]);
    watched.loaded("a");
    let wrong = |watched: &Watched| watched.status.files.get().unwrap().1.join("; ");
    assert_eq!(wrong(&watched), "");
    let elsewhere = watched.dir.path().with_extension("away");
    fs::rename(watched.dir.path(), &elsewhere).unwrap();
    watched.look_until(|watched| wrong(watched).contains("the rules that are loaded keep running"));
    fs::rename(&elsewhere, watched.dir.path()).unwrap();
    watched.look_until(|watched| wrong(watched).is_empty());
    watched.nothing_more();
}

#[test]
fn what_looks_like_a_rule_and_is_none_is_said() {
    let watched = Watched::start(&[("good.sql", &lamp(1))]);
    for name in ["a.SQL", "b.sql.txt", "c.sql.bak", "notes.md", ".d.sql"] {
        fs::write(watched.path(name), lamp(1)).unwrap();
    }
    for (folder, file) in [("line1", "fan.sql"), ("data", "fan.csv")] {
        fs::create_dir(watched.path(folder)).unwrap();
        fs::write(watched.path(folder).join(file), lamp(1)).unwrap();
    }
    let dir = watched.dir.path();
    let said: Vec<String> = strays(dir).iter().map(ToString::to_string).collect();
    let ending = "this is not read as a rule: the names of rules end with `.sql`, in lower case; rename it";
    let expected = [
        format!("{}: {ending}", dir.join("a.SQL").display()),
        format!("{}: {ending}", dir.join("b.sql.txt").display()),
        format!(
            "{}: rules in folders are not read; move them into the rules directory itself",
            dir.join("line1").display()
        ),
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_plugin_is_one_source_with_the_manifest_beside_it() {
    // An empty component.
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    let dir = tempfile::tempdir().unwrap();
    let (plugin, manifest) = (dir.path().join("a.wasm"), dir.path().join("a.toml"));
    let parts = |source: &Source| {
        let (component, manifest) = unpack(source.bytes());
        (component.to_vec(), manifest.map(str::to_owned))
    };
    fs::write(&plugin, COMPONENT).unwrap();
    let (source, alone) = read(&plugin).unwrap();
    assert_eq!(parts(&source), (COMPONENT.to_vec(), None));
    fs::write(&manifest, "reads = []").unwrap();
    let (source, with_manifest) = read(&plugin).unwrap();
    assert_eq!(parts(&source), (COMPONENT.to_vec(), Some("reads = []".to_owned())));
    assert!(alone != with_manifest && stamp(&plugin) == Some(with_manifest));
    assert!(alone.is_of_same_file(&with_manifest), "the plugin itself is what a rename is known by");
    // What is packed in already stands back behind what lies beside it.
    fs::write(&plugin, source.bytes()).unwrap();
    fs::write(&manifest, "reads = [1]").unwrap();
    assert_eq!(parts(&read(&plugin).unwrap().0).1.as_deref(), Some("reads = [1]"));
    fs::remove_file(&manifest).unwrap();
    assert_eq!(parts(&read(&plugin).unwrap().0).1.as_deref(), Some("reads = []"));
    fs::create_dir(&manifest).unwrap();
    let wrong = read(&plugin).err().unwrap().to_string();
    assert!(wrong.contains("a.toml: cannot read the plugin's manifest: it is no file"), "{wrong}");
}

#[test]
fn a_change_of_a_manifest_is_one_of_its_plugin() {
    assert_eq!(touched_rule(Path::new("rules/a.toml")), Some("a"));
    assert_eq!(touched_rule(Path::new("rules/a.wasm")), Some("a"));
    assert_eq!(touched_rule(Path::new("rules/a.sql")), Some("a"));
    assert_eq!(touched_rule(Path::new("rules/.a.toml")), None);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.toml"), "").unwrap();
    let said: Vec<String> = strays(dir.path()).iter().map(ToString::to_string).collect();
    let what = "there is no plugin beside this manifest; put it there, or delete the manifest";
    assert_eq!(said, [format!("{}: {what}", dir.path().join("a.toml").display())]);
    fs::write(dir.path().join("a.wasm"), "").unwrap();
    assert_eq!(strays(dir.path()), []);
}
