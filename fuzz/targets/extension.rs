//! Any `Sec-WebSocket-Extensions` is answered or declined; an answer, offered again, is agreed
//! to with the same terms. Input: flags, the header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsd::websocket::{DeflateOptions, accept_response, negotiate};

fuzz_target!(|input: &[u8]| {
    let [flags, header @ ..] = input else { return };
    let Ok(header) = std::str::from_utf8(header) else { return };
    let options = DeflateOptions {
        enabled: true,
        server_no_context_takeover: flags & 1 != 0,
        client_no_context_takeover: flags & 2 != 0,
        server_max_window_bits: 9 + (flags >> 2) % 7,
        ..DeflateOptions::default()
    };
    let _ = accept_response(Some(header), &options);
    let contexts = flags & 128 != 0;
    if let Some((params, answer)) = negotiate([header], &options, contexts) {
        assert!((9..=options.server_max_window_bits).contains(&params.compress.bits));
        assert!((8..=15).contains(&params.decompress.bits));
        assert!(contexts || params.context_bytes() == 0);
        let again = negotiate([answer.as_str()], &options, contexts);
        assert_eq!(again, Some((params, answer)));
    }
});
