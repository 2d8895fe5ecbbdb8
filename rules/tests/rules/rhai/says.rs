//! What is said of scripts that are wrong, without running them.

use super::*;

/// What is wrong with a script that reads the tank, behind the file's name. The options are two lines.
fn said(body: &str) -> String {
    wrong(&on_tank(body)).replace("rule.rhai:", "")
}

#[test]
fn options_say_what_is_read_and_written() {
    let no_reads = wrong("//! writes = [\"pump\"]\nfn on_row(row, state) { }");
    assert!(
        no_reads.starts_with("rule.rhai:1:1: the script reads no stream; write `//! reads"),
        "{no_reads}"
    );
    let misspelt = wrong("//! reads = [\"tnk\"]\n//! writes = [\"pmp\"]\nfn on_row(row, state) { }");
    assert_eq!(
        misspelt,
        "rule.rhai:1:1: there is no stream `tnk`; did you mean `tank`?\nrule.rhai:2:1: `pmp` is not an output, a \
         derived stream or `uplink`; did you mean `pump`?\n"
    );
    let table = wrong("//! reads = [\"limits\"]\n//! writes = [\"tank\"]\nfn on_row(row, state) { }");
    assert!(table.contains("`limits` is a reference table, which scripts do not read"), "{table}");
    assert!(table.contains("`tank` is fed by a connection and cannot be written"), "{table}");
    let later = wrong("//! reads = [\"later\"]\n//! writes = [\"pump\"]\nfn on_row(row, state) { }");
    assert_eq!(later, "waiting for [\"later\"]\n");
    assert_eq!(
        said("fn on_row(row, state) { }\n// mode = \"shadow\"\n"),
        "4:1: this comment reads like an option, and is none; write `//! mode = \"shadow\"` at the top of the file, \
         or other words\n"
    );
}

#[test]
fn mistakes_are_found_without_running() {
    for (body, expected) in [
        (
            "fn on_row(row, state) {\n  if row.temprature > 80.0 { }\n}",
            "4:10: `tank` has no column `temprature`; did you mean `temperature`?\n",
        ),
        (
            "fn on_row(row, state) { row[\"cout\"] }",
            "3:29: `tank` has no column `cout`; did you mean `count`?\n",
        ),
        (
            "fn on_row(row, state) { write(\"pmp\", #{ run: true }); }",
            "3:31: `pmp` is not among the targets of the option `writes`; did you mean `pump`?\n",
        ),
        (
            "fn on_row(row, state) { write(\"pump\", #{ rn: true }); }",
            "3:42: output `pump` has no column `rn`; did you mean `run`?\n",
        ),
        (
            "fn on_row(row, state) { write(\"pump\", #{ run: 1 }); }",
            "3:47: column `run` is int64, but output `pump` declares it bool\n",
        ),
        (
            "fn on_row(row, state) { write(\"pump\", #{ speed: row.device }); }",
            "3:52: column `speed` is utf8, but output `pump` declares it float64\n",
        ),
        (
            "fn on_row(row, state) { write(\"lamp\", #{ on: true }); }",
            "3:39: output `lamp` needs a column `device`, because its configuration names it; write `device: ..` as \
             well\n",
        ),
        (
            "fn on_row(row, state) { write(\"hot\", #{ mean: 1.0, men: 2 }); }",
            "3:52: stream `hot` declares no field `men`; did you mean `mean`?\n",
        ),
        (
            "fn on_row(row, state) { clmp(row.temperature, 0, 1) }",
            "3:25: there is no function `clmp`; did you mean `clamp`?\n",
        ),
        (
            "fn on_row(row, state) { clamp(row.temperature, 0) }",
            "3:25: `clamp` takes 3 values, and is given 2\n",
        ),
        (
            "fn on_row(row, state) { after(\"10\", \"x\") }\nfn on_timer(tag, state) { }",
            "3:31: \"10\" is not a duration: write a whole number and a unit, such as \"250ms\", \"10s\", \"5min\", \
             \"2h\" or \"7d\"\n",
        ),
        (
            "fn on_row(row, state) { after(\"1s\", \"x\") }",
            "3:25: nothing is called when this timer is due; write `fn on_timer(tag, state) { .. }`\n",
        ),
        (
            "fn on_row(row, state) { hysteresis(#{}, \"hot\", row.temperature, 70, 80) }",
            "3:36: what `hysteresis` remembers would be forgotten at once; give it the state itself: \
             `hysteresis(state, ..)`\n",
        ),
        (
            "fn on_row(row, state) { state = 5; }",
            "3:25: the state cannot be replaced; set its entries, or write \
          `state.clear()`\n",
        ),
        (
            "fn on_row(row, state) { row.count = 5; }",
            "3:28: a row cannot be changed; keep the value in a variable\n",
        ),
        (
            "fn on_row(stream, row, state) { if stream == \"valve\" { } }",
            "3:46: the script does not read `valve`; known names: `tank`\n",
        ),
        ("fn on_rows(rows, state) { }", "3:4: nothing calls `on_rows`; did you mean `on_row`?\n"),
        (
            "fn on_row(row) { 1 }",
            "3:4: `on_row` has the parameters (row); write `fn on_row(stream, row, state)` or, for one stream, `fn \
             on_row(row, state)`\n",
        ),
        (
            "let x = 5;\nfn on_row(row, state) { }",
            "3:1: `x` stands outside of all functions, which cannot change it; write `const x = ..`, or keep what \
             changes in `state.x`\n",
        ),
        (
            "fn on_row(row, state) { x + 1 }",
            "3:25: there is no variable `x`; a function sees its parameters, what it defines with `let`, and `const` \
             at the top of the file\n",
        ),
        ("fn on_row(row, state) { 2 ** 3 }", "3:27: there is no `**`; write `pow(x, y)`\n"),
        (
            "fn on_row(row, state) { let f = |x| x; }",
            "3:33: `|` is not for rules; write a loop: `for x in list { .. }`\n",
        ),
        ("fn on_row(row, state) { eval(\"1\") }", "3:25: `eval` is not for rules; write the code itself\n"),
        (
            "fn on_row(row, state) { import \"x\" as y; }",
            "3:25: `import` is not for rules; a rule is one file\n",
        ),
        (
            "fn on_row(row, state) { timestamp() }",
            "3:25: there is no function `timestamp`; docs/rhai.md lists the functions\n",
        ),
        (
            "fn on_row(row, state) {",
            "3:24: expecting `}` to terminate this block; the `{` in line 3 seems to have none\n",
        ),
    ] {
        assert_eq!(said(body), expected, "{body}");
    }
}

#[test]
fn what_other_languages_write_is_told_in_this_one() {
    for (body, expected) in [
        (
            "fn on_row(row, state) {\n  if row.running {\n    log(1);\n  log(\"}\");\n}\n",
            "expecting `}` to terminate this block; the `{` in line 4 seems to have none\n",
        ),
        (
            "fn on_row(row, state) {\n  if row.running {\n    log(1);\n}\n\nfn f(x) {\n  x\n}\n",
            "the `{` in line 4 seems to have none\n",
        ),
        ("fn on_row(row, state) { write(\"pump\", { run: true }); }", "; a map begins with `#{`\n"),
        ("const S = { kp: 1.0 };\nfn on_row(row, state) { }", "; a map begins with `#{`\n"),
        (
            "fn on_row(row, state) { write('pump', #{ run: true }); }",
            "`'pump'` is not one character; texts stand between double quotes: `\"text\"`\n",
        ),
        (
            "fn on_row(row, state) { let t = row.temperature || 5.0; }",
            "3:52: expecting a condition, and not a floating-point number; `x ?? 5.0` gives a value to what is \
             missing\n",
        ),
        (
            "fn on_row(row, state) { let t = row.running || row.count; }",
            "3:51: `||` takes conditions, and this is int64; `x ?? 5.0` gives a value to what is missing\n",
        ),
        (
            "--! mode = \"shadow\"\nfn on_row(row, state) { }",
            "3:1: this is how options of SQL begin; write `//! mode = \"shadow\"`\n",
        ),
        (
            "-- a comment\nfn on_row(row, state) { }",
            "3:1: `--` is not for rules; a comment begins with `//`, and `x -= 1` counts down\n",
        ),
    ] {
        let said = said(body);
        assert!(said.ends_with(expected), "{body}\n{said}");
    }
}

/// With literal values and with constants, in the words of the functions themselves.
#[test]
fn settings_that_are_always_refused_are_found_without_running() {
    for (settings, expected) in [
        ("#{ kp: 2.0, kii: 1.0 }", "`pid` has no setting `kii`; did you mean `ki`?"),
        ("#{ ki: 1.0 }", "`pid` needs the setting `kp`"),
        ("#{ kp: \"2\" }", "`kp` of `pid` must be a number, and is utf8"),
        ("#{ kp: 2.0, min: 100, max: 0 }", "`min` of `pid` is 100, and greater than `max`, 0"),
        ("#{ kp: 2.0, min: 100, max: -1.5 }", "`min` of `pid` is 100, and greater than `max`, -1.5"),
        ("5.0", "the settings of `pid` are a map, `#{ kp: 2.0 }`, and not float64"),
    ] {
        let literal =
            format!("fn on_row(row, state) {{ pid(state, \"a\", 50, row.temperature, {settings}) }}");
        let constant = format!(
            "const S = {settings};\nfn on_row(row, state) {{ pid(state, \"a\", 50, row.temperature, S) }}"
        );
        let at_run_time = format!(
            "fn on_row(row, state) {{ let s = {settings}; pid(state, \"a\", 50, row.temperature, s) }}"
        );
        for script in [literal, constant] {
            assert!(said(&script).ends_with(&format!(": {expected}\n")), "{script}\n{}", said(&script));
        }
        let left_out = three(&at_run_time).bad_row.unwrap();
        assert!(left_out.contains(expected) || settings == "5.0", "{left_out}");
    }
    let place = "fn on_row(row, state) { pid(state, \"a\", 50, row.temperature, #{ kp: row.count, kk: 1 }) }";
    assert!(said(place).starts_with("3:80: `pid` has no setting `kk`"), "{}", said(place));
    for (call, expected) in [
        (
            "moving_average(state, \"a\", row.count, 0)",
            "`moving_average` is of 1 to 1000 readings, and not of 0",
        ),
        ("ewma(state, \"a\", row.count, 1.5)", "the share of `ewma` is over 0 and at most 1, and not 1.5"),
        ("ewma(state, \"a\", row.count, \"0s\")", "the time of `ewma` is longer than \"0s\""),
        ("held(state, \"a\", row.running, 10)", "the time of `held` is text, such as \"10s\", and not int64"),
        (
            "hysteresis(state, \"a\", row.count, 80, 70)",
            "`low` of `hysteresis` is 80, and greater than `high`, 70",
        ),
        (
            "ramp(state, \"a\", row.count, \"1\")",
            "the change per second of `ramp` must be a number, and is utf8",
        ),
    ] {
        let said = said(&format!("fn on_row(row, state) {{ {call} }}"));
        assert!(said.ends_with(&format!(": {expected}\n")), "{call}\n{said}");
    }
    for fits in [
        "const S = #{ kp: 1 };\nfn on_row(row, state) { let S = 5; moving_average(state, \"a\", row.count, S) }",
        "fn on_row(row, state) { pid(state, \"a\", 50, row.count, #{ kp: row.count, max: state.most, min: 5 }) }",
        "fn on_row(row, state) { ewma(state, \"a\", row.count, 1); hysteresis(state, \"b\", row.count, state.l, 2) }",
    ] {
        assert_eq!(said(fits), "", "{fits}");
    }
}

#[test]
fn a_column_of_one_stream_is_read_after_asking_for_the_stream() {
    let both = |body: &str| {
        let script = format!("//! reads = [\"tank\", \"valve\"]\n//! writes = [\"uplink\"]\n{body}");
        match compile(&script) {
            Ok(compiled) => compiled.warnings.iter().map(|warning| format!("{warning}\n")).collect(),
            Err(_) => wrong(&script),
        }
    };
    assert_eq!(
        both("fn on_row(stream, row, state) { write(\"uplink\", #{ stream: stream, x: row.position }); }"),
        "rule.rhai:3:75: `tank` has no column `position`, and its rows would be left out; ask first of which stream \
         the row is: `if stream == \"valve\" { .. }`\n"
    );
    assert_eq!(
        both("fn on_row(stream, row, state) { write(\"uplink\", #{ x: row.setpoint }); }"),
        "rule.rhai:3:59: `tank` and `valve` have no column `setpoint`; known names: `count`, `device`, `position`, \
         `running`, `temperature`, `ts`\n"
    );
    for fits in [
        "if stream == \"valve\" { state.x = row.position; }",
        "switch stream { \"valve\" => { state.x = row.position; } _ => { } }",
        "state[stream] = row.device;",
    ] {
        assert_eq!(both(&format!("fn on_row(stream, row, state) {{ {fits} }}")), "", "{fits}");
    }
}

#[test]
fn a_function_is_no_value() {
    for body in [
        "fn f(x) { x }\nfn on_row(row, state) { state.f = f; }",
        "fn f(x) { x }\nfn on_row(row, state) { let g = Fn(\"f\"); }",
        "fn f(x) { x }\nfn on_row(row, state) { state.f = f.curry(1); }",
        "fn f(x) { x }\nfn on_row(row, state) { call(f, 1) }",
        "fn f(x) { x }\nfn on_row(row, state) { [1].map(f) }",
    ] {
        assert_ne!(said(body), "", "{body}");
    }
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let warned = |body: &str| {
        let compiled = compile(&on_tank(body)).ok().unwrap();
        compiled.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let typo = warned("fn on_row(row, state) { state.running = true; if state.runing ?? false { } }");
    assert_eq!(
        typo,
        ["rule.rhai:3:56: `state.runing` is read, and nothing sets it; did you mean `state.running`?"]
    );
    let twice = warned(
        "fn on_row(row, state) {\n  let a = rising(state, \"x\", true);\n  let b = rising(state, \"x\", false);\n}",
    );
    assert_eq!(
        twice,
        [
            "rule.rhai:5:11: `rising` has the name \"x\" in line 4, too: both remember the same; give each its own name"
        ]
    );
    assert_eq!(warned("fn on_batch(rows, state) { }").len(), 1);
    assert!(warned("fn on_row(row, state) { state.n = (state.n ?? 0) + 1; }").is_empty());
}
