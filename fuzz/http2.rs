//! What must hold for the frames and heads of HTTP/2. Run by the fuzz target, and on generated input by `cargo test`.

use hipflask_http::frames::{FrameError, Frames};
use hipflask_http::http2::Parts;
use hipflask_http::{Framing, Limits, RequestHead, Underscores, Version};

/// Frames are judged alike however they arrive, and the offence is found at the same place.
pub(crate) fn frames(data: &[u8]) {
    let whole = watch(data, usize::MAX);
    for size in [1, 2, 9, 13] {
        let slow = watch(data, size);
        assert_eq!(whole.0, slow.0, "in pieces of {size}");
        assert_eq!(whole.1, slow.1, "in pieces of {size}");
    }
}

/// What is wrong, and the last stream that had begun before.
fn watch(data: &[u8], size: usize) -> (Option<FrameError>, u32) {
    let mut frames = Frames::default();
    for piece in data.chunks(size) {
        if let Err((at, error)) = frames.watch(piece) {
            assert!(at <= piece.len());
            return (Some(error), frames.last_stream());
        }
    }
    (None, frames.last_stream())
}

/// A head that is accepted says what its parts said and no more: nothing in a value becomes a field or a request.
///
/// The first byte says which parts there are; the rest, divided at zeros, are the parts, then names and values.
pub(crate) fn head(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut texts = data.split(|byte| *byte == 0);
    let mut part = |bit: u8, otherwise: &'static [u8]| match choice >> bit & 1 {
        0 => otherwise,
        _ => texts.next().unwrap_or_default(),
    };
    let method = part(0, b"GET");
    let parts = Parts {
        method,
        path: Some(part(1, b"/a?b")),
        scheme: Some(part(2, b"https")),
        authority: (choice & 0x40 == 0).then(|| part(3, b"a.test")),
        protocol: (choice & 0x20 != 0).then(|| part(4, b"websocket")),
        ends: choice & 0x80 != 0,
    };
    let rest: Vec<&[u8]> = texts.collect();
    let given: Vec<(&[u8], &[u8])> = rest.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let limits = Limits { underscores: Underscores::Keep, ..Limits::default() };
    let Ok(head) = RequestHead::from_http2(&parts, given.iter().copied(), &limits) else { return };
    assert_eq!(head.version(), Version::Http2);
    let is_tunnel = parts.protocol.is_some();
    assert_eq!(head.method(), if is_tunnel { b"GET" } else { parts.method });
    assert_eq!(Some(head.target()), parts.path);
    assert!(!head.method().iter().chain(head.target()).any(|byte| *byte <= b' ' || *byte == 0x7f));
    let cookies = given.iter().filter(|(name, _)| *name == b"cookie").count();
    let hosts = given.iter().filter(|(name, _)| parts.authority.is_some() && *name == b"host").count();
    let made = usize::from(parts.authority.is_some()) + usize::from(cookies > 0) + 2 * usize::from(is_tunnel);
    assert_eq!(head.fields().count(), given.len() - cookies - hosts + made);
    for (name, value) in head.fields() {
        assert!(!name.iter().any(|byte| *byte <= b' ' || *byte == b':'));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    match head.framing() {
        Framing::None => assert!(parts.ends || is_tunnel),
        Framing::Chunked => assert!(!parts.ends && !is_tunnel),
        Framing::Length(_) => assert!(!is_tunnel),
    }
}
