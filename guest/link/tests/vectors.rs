//! Holds the framing against `tests/vectors/framing.json`, with the bytes cut up in several ways.

use link::{Endpoint, Event, Identity, Kind, encode_header};
use proptest::prelude::*;
use serde_json::{Value, json};

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/framing.json");
    serde_json::from_slice(&std::fs::read(path).expect("the vectors are there")).expect("JSON")
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn bytes(parts: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts.as_array().expect("a list") {
        match part.as_str() {
            Some(text) => out.extend(hex(text)),
            None => out.extend(hex(part["repeat"].as_str().expect("hex")).repeat(number(&part["times"]) as usize)),
        }
    }
    out
}

fn number(value: &Value) -> u32 {
    value.as_u64().expect("a number") as u32
}

fn sixteen(value: &Value) -> [u8; 16] {
    hex(value.as_str().expect("hex")).try_into().expect("16 bytes")
}

/// An event as the vectors write it, with the payload's bytes beside it.
fn written(endpoint: &Endpoint, event: Event) -> (Value, Vec<u8>) {
    let mut payload = Vec::new();
    let value = match event {
        Event::Hello { accepted } => json!({"event": "hello", "accepted": accepted}),
        Event::Opened { stream, port } => json!({"event": "opened", "stream": stream, "port": port}),
        Event::Data { stream, payload: range, .. } => {
            payload.extend_from_slice(endpoint.bytes(range));
            json!({"event": "data", "stream": stream})
        }
        Event::Ended { stream, .. } => json!({"event": "ended", "stream": stream}),
        Event::Reset { stream, errno, .. } => json!({"event": "reset", "stream": stream, "errno": errno}),
        Event::Credit { stream, bytes, .. } => json!({"event": "credit", "stream": stream, "bytes": bytes}),
        Event::Pong(mark) => {
            payload.extend_from_slice(&mark);
            json!({"event": "pong"})
        }
        Event::Fault(fault) => json!({"event": "fault", "fault": fault.name()}),
    };
    (value, payload)
}

fn expected(step: &Value) -> Vec<(Value, Vec<u8>)> {
    let strip = |event: &Value| {
        let mut event = event.as_object().expect("an object").clone();
        let payload = event.get("event") != Some(&json!("credit"));
        let payload = if payload { event.remove("bytes").map(|parts| bytes(&parts)) } else { None };
        (Value::Object(event), payload.unwrap_or_default())
    };
    step["events"].as_array().map(|events| events.iter().map(strip).collect()).unwrap_or_default()
}

fn feed(endpoint: &mut Endpoint, wire: &[u8], cuts: &[usize]) -> Vec<(Value, Vec<u8>)> {
    let mut events = Vec::new();
    let mut rest = wire;
    let mut sizes = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let space = endpoint.space();
        let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()).min(space.len());
        space[..size].copy_from_slice(&rest[..size]);
        endpoint.filled(size);
        rest = &rest[size..];
        while let Some(event) = endpoint.poll() {
            events.push(written(endpoint, event));
        }
    }
    forgive(events)
}

/// What the old connection left before a HELLO may look like a fault, depending on where the bytes were cut.
fn forgive(events: Vec<(Value, Vec<u8>)>) -> Vec<(Value, Vec<u8>)> {
    let next: Vec<bool> = events.iter().skip(1).map(|event| event.0["event"] == "hello").chain([false]).collect();
    events
        .into_iter()
        .zip(next)
        .filter(|(event, hello)| !(*hello && event.0["event"] == "fault"))
        .map(|(event, _)| event)
        .collect()
}

/// What waits to be sent, without CREDIT: when that is given is the receiver's business.
fn sent(endpoint: &mut Endpoint) -> Vec<u8> {
    let wire = std::mem::take(endpoint.control());
    let mut out = Vec::new();
    let mut rest = wire.as_slice();
    while let Some(head) = rest.get(..16) {
        let length =
            if head.starts_with(b"FK") { u32::from_le_bytes(head[8..12].try_into().expect("4")) as usize } else { 48 };
        let (frame, after) = rest.split_at(16 + length);
        if !(head.starts_with(b"FK") && head[2] == Kind::Credit as u8) {
            out.extend_from_slice(frame);
        }
        rest = after;
    }
    out
}

fn act(endpoint: &mut Endpoint, step: &Value) -> Vec<u8> {
    let stream = number(&step["stream"]);
    match step["do"].as_str().expect("a verb") {
        "open" => {
            assert_eq!(endpoint.open(number(&step["port"]), 0), Ok(stream));
            sent(endpoint)
        }
        "data" => {
            let payload = bytes(&step["bytes"]);
            assert!(payload.len() <= endpoint.budget(stream));
            [endpoint.data_header(stream, payload.len()).to_vec(), payload].concat()
        }
        "end" => endpoint.end(stream).expect("is open").to_vec(),
        "reset" => {
            endpoint.reset(stream, number(&step["errno"]));
            sent(endpoint)
        }
        verb => panic!("unknown verb {verb}"),
    }
}

fn run(document: &Value, case: &Value, cuts: &[usize]) {
    let name = case["name"].as_str().expect("a name");
    let guest = case["role"] == "guest";
    let connected = case["connected"] == true;
    if !guest && !connected {
        return; // the asking side of the handshake is the host's alone, in Python
    }
    let identity = Identity {
        schema: sixteen(&document["identity"]["schema"]),
        boot_id: sixteen(&document["identity"]["boot_id"]),
    };
    let mut endpoint = match guest {
        true => Endpoint::guest(sixteen(&document["sentinels"][0]), identity),
        false => Endpoint::host(),
    };
    if guest && connected {
        let hello = link::Hello {
            sentinel: sixteen(&document["sentinels"][0]),
            major: link::MAJOR,
            nonce: sixteen(&document["nonces"][0]),
            next: sixteen(&document["sentinels"][1]),
        };
        feed(&mut endpoint, &hello.encode(), &[64]);
        sent(&mut endpoint);
    }
    for step in case["steps"].as_array().expect("a list") {
        let sends = bytes(&step["sends"]);
        if step.get("receive").is_none() {
            assert_eq!(act(&mut endpoint, step), sends, "{name}");
            continue;
        }
        assert_eq!(feed(&mut endpoint, &bytes(&step["receive"]), cuts), expected(step), "{name}, cut {cuts:?}");
        assert_eq!(sent(&mut endpoint), sends, "{name}, cut {cuts:?}");
    }
}

#[test]
fn initial_sentinel_is_the_published_one() {
    assert_eq!(link::INITIAL_SENTINEL, sixteen(&document()["sentinels"][0]));
}

#[test]
fn vectors_hold_in_one_piece_and_byte_by_byte() {
    let document = document();
    let cases = document["cases"].as_array().expect("a list");
    assert!(cases.len() > 40);
    for case in cases {
        for cuts in [[usize::MAX], [1], [15], [16], [4096]] {
            run(&document, case, &cuts);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn vectors_hold_however_they_are_cut(cuts in prop::collection::vec(1_usize..200, 1..20)) {
        let document = document();
        for case in document["cases"].as_array().expect("a list") {
            run(&document, case, &cuts);
        }
    }
}

#[test]
fn headers_are_what_the_page_says() {
    let header = encode_header(Kind::Open, 1, 4);
    assert_eq!(&header[..12], &[0x46, 0x4b, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0]);
}
