//! Any words are a script or an error, and a script takes any rows: what the fuzz target does for longer.

use proptest::prelude::*;

use super::*;

const WORDS: &str = include_str!("../../rhai-words.txt");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_words_are_a_script_or_an_error(words in prop::collection::vec(any::<prop::sample::Index>(), 1..12)) {
        let known: Vec<&str> = WORDS.lines().collect();
        let words = words.iter().map(|word| *word.get(&known)).collect::<Vec<_>>().join(" ");
        let script = on_tank(&format!(
            "fn on_row(row, state) {{ let x = row.temperature; {words} }}\nfn on_timer(t, state) {{ }}"
        ));
        if let Ok(compiled) = compile(&script) {
            let mut rule = compiled.rule;
            let mut out = Emissions::default();
            let rows = tank(0, &[("a", Some(81.5), Some(i64::MAX)), ("b", None, None)]);
            if rule.on_batch("tank", &rows, When::at(0), &mut out).is_ok() {
                prop_assert!(rule.snapshot().is_ok());
            }
        }
    }
}
