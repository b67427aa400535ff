//! Lines on the control socket: a request that is taken is a JSON object that says nothing but
//! what was understood, and is the same when written again; so is every kind of answer.
//!
//! Input: which kind of line, the line.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wsd::ipc::control::{Answer, Connection, ReloadVerdict, Request, Status, line};

fuzz_target!(|input: &[u8]| {
    let [kind, text @ ..] = input else { return };
    match kind % 5 {
        0 => request(text),
        1 => drop(comes_back::<Status>(text)),
        2 => drop(comes_back::<Connection>(text)),
        3 => drop(comes_back::<ReloadVerdict>(text)),
        // A number with a fraction may lose its last bit when it is read; no answer has one.
        _ if text.contains(&b'.') || text.iter().any(|byte| matches!(byte, b'e' | b'E')) => {}
        _ => drop(comes_back::<Answer>(text)),
    }
});

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(text).ok()?;
    let again = line(&value);
    assert!(again.ends_with('\n') && !again.trim_end().contains('\n'), "{again:?}");
    assert_eq!(serde_json::from_str::<T>(&again).unwrap(), value);
    Some(value)
}

fn request(text: &[u8]) {
    let Some(request) = comes_back::<Request>(text) else { return };
    let asked: Value = serde_json::from_slice(text).unwrap();
    let Value::Object(asked) = asked else { panic!("{asked} is no object") };
    let Ok(Value::Object(understood)) = serde_json::to_value(&request) else { panic!() };
    for (key, value) in asked {
        match understood.get(&key) {
            Some(meant) => assert_eq!(*meant, value, "{key}"),
            None => assert!(value.is_null(), "{key} was passed over"),
        }
    }
}
