//! Compiled code: kept, and damaged.

use super::*;

#[test]
fn a_plugin_is_compiled_once() {
    let kept = Arc::new(InMemory::default());
    let catalog = keeping(&kept);
    let component = component(THRESHOLD);
    compile(&component, TO_UPLINK, &catalog).map(drop).unwrap();
    let (key, code) = kept.0.lock().unwrap().pop_first().unwrap();
    assert!(key.starts_with(&*crate::sha256(&component)), "{key}");
    // Another manifest, the same code.
    kept.put(&key, &code);
    compile(&component, "reads = [\"tank\"]\nwrites = [\"hot\"]", &catalog).map(drop).unwrap();
    assert_eq!(kept.0.lock().unwrap().len(), 1);
    // What is damaged is compiled again.
    let mut damaged = code.clone();
    damaged[code.len() / 2] ^= 1;
    for damaged in [damaged, Vec::new(), code[..100].to_vec(), b"tidegate code 1\n".to_vec()] {
        kept.put(&key, &damaged);
        let mut rule = compile(&component, TO_UPLINK, &catalog).unwrap().rule;
        let (out, outcome) = call(&mut rule, &numbers(1, &[81.0]), 0);
        assert_eq!((outcome, out.rows.len()), (Ok(()), 1));
        assert_eq!(kept.get(&key).unwrap(), code);
    }
}
