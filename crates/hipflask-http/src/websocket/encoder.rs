//! Writing frames (RFC 6455 §5).

use std::sync::OnceLock;

use super::close;
use super::deflate::{Deflater, compress_alone};
use super::extension::{Deflate, DeflatePolicy};
use super::{CLOSE, CONTINUATION, CONTROL, FIN, MASKED, PING, PONG, RSV1};
use super::{Control, Error, Kind, Role, mask};

/// A window that reaches back over every message shorter than it, whatever the window agreed on.
const FULL_WINDOW: u8 = 15;

/// Writes one end's frames.
pub struct Encoder {
    /// A client's: the state of its generator of masks.
    masks: Option<u64>,
    deflate: Option<Box<Deflater>>,
    threshold: usize,
}

impl Encoder {
    /// An encoder for a server.
    #[must_use]
    pub fn server(deflate: Option<&Deflate>) -> Self {
        Encoder {
            masks: None,
            deflate: deflate.map(|deflate| Box::new(deflate.server_deflater())),
            threshold: deflate.map_or(0, |deflate| deflate.threshold),
        }
    }

    /// An encoder for a client. Masks protect proxies from chosen bytes (RFC 6455 §10.3): `seed` has to come from
    /// the system's random numbers wherever others choose what is sent.
    #[must_use]
    pub fn client(deflate: Option<&Deflate>, seed: u64) -> Self {
        Encoder {
            masks: Some(seed | 1),
            deflate: deflate.map(|deflate| Box::new(deflate.client_deflater())),
            threshold: deflate.map_or(0, |deflate| deflate.threshold),
        }
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        if self.masks.is_some() { Role::Client } else { Role::Server }
    }

    /// Appends a message in one frame, compressed if that was agreed on and the message is not too short for it.
    pub fn message(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
        match self.compressed(payload) {
            Some(packed) => self.frame(FIN | RSV1 | kind.opcode(), &packed, out),
            None => self.frame(FIN | kind.opcode(), payload, out),
        }
    }

    /// Appends a message in frames of at most `size` bytes of payload.
    pub fn fragmented(&mut self, kind: Kind, payload: &[u8], size: usize, out: &mut Vec<u8>) {
        let packed = self.compressed(payload);
        let mut first = kind.opcode() | if packed.is_some() { RSV1 } else { 0 };
        let payload = packed.as_deref().unwrap_or(payload);
        let mut pieces = payload.chunks(size.max(1)).peekable();
        if pieces.peek().is_none() {
            self.frame(FIN | first, &[], out);
        }
        while let Some(piece) = pieces.next() {
            let fin = if pieces.peek().is_none() { FIN } else { 0 };
            self.frame(fin | first, piece, out);
            first = CONTINUATION;
        }
    }

    /// The bytes of a message that goes to many connections, for this one. Compressed and put in a frame once for all
    /// who take it the same way. Only for servers: clients mask every frame differently.
    #[must_use]
    pub fn shared<P: Clone + From<Vec<u8>>>(&mut self, message: &SharedMessage<P>) -> P {
        let length = message.payload.len();
        match &mut self.deflate {
            // In a smaller window the message may not refer to itself that far back.
            Some(deflate) if length >= self.threshold && length <= 1 << deflate.window_bits() => {
                // The other end now knows a message that this compressor does not.
                deflate.forget();
                message.deflated().clone()
            }
            _ => message.plain().clone(),
        }
    }

    /// Appends a ping or pong.
    ///
    /// # Errors
    /// [`Error::LongControl`] if the payload is longer than 125 bytes.
    pub fn control(&mut self, control: Control, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if payload.len() > CONTROL {
            return Err(Error::LongControl);
        }
        self.frame(FIN | opcode(control), payload, out);
        Ok(())
    }

    /// Appends a close frame, after which nothing may be sent. A code that may not be sent (such as 1005) is left out;
    /// the reason is cut to the 123 bytes that fit.
    pub fn close(&mut self, code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
        self.frame(FIN | CLOSE, &close::body(code, reason), out);
    }

    fn compressed(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let deflate = self.deflate.as_mut().filter(|_| payload.len() >= self.threshold)?;
        let mut packed = Vec::new();
        deflate.compress(payload, &mut packed);
        Some(packed)
    }

    fn frame(&mut self, first: u8, payload: &[u8], out: &mut Vec<u8>) {
        let Some(state) = &mut self.masks else { return frame(first, payload, out) };
        // splitmix64: every seed gives a full period.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, ..] = (mixed ^ (mixed >> 31)).to_ne_bytes();
        let key = [a, b, c, d];
        out.reserve(payload.len() + 14);
        head(first, MASKED, payload.len(), out);
        out.extend_from_slice(&key);
        let at = out.len();
        out.extend_from_slice(payload);
        mask::apply(key, 0, out.get_mut(at..).unwrap_or_default());
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let deflates = self.deflate.is_some();
        f.debug_struct("Encoder")
            .field("role", &self.role())
            .field("deflate", &deflates)
            .finish_non_exhaustive()
    }
}

/// A message for many connections: framed once, and compressed once, when the first connection wants it so. `P` holds
/// bytes and is cheap to clone, as `Arc<[u8]>` is.
#[derive(Debug)]
pub struct SharedMessage<P> {
    kind: Kind,
    payload: Vec<u8>,
    level: u8,
    plain: OnceLock<P>,
    deflated: OnceLock<P>,
}

impl<P: From<Vec<u8>>> SharedMessage<P> {
    /// A message; `policy` says how hard to compress.
    #[must_use]
    pub fn new(kind: Kind, payload: Vec<u8>, policy: &DeflatePolicy) -> Self {
        let level = policy.level.clamp(1, 9);
        SharedMessage { kind, payload, level, plain: OnceLock::new(), deflated: OnceLock::new() }
    }

    /// The frame without compression.
    pub fn plain(&self) -> &P {
        self.plain.get_or_init(|| message(self.kind, &self.payload).into())
    }

    fn deflated(&self) -> &P {
        self.deflated.get_or_init(|| {
            let mut packed = Vec::new();
            compress_alone(FULL_WINDOW, self.level, &self.payload, &mut packed);
            whole(FIN | RSV1 | self.kind.opcode(), &packed).into()
        })
    }
}

/// A server's frame that holds a whole message, not compressed.
#[must_use]
pub fn message(kind: Kind, payload: &[u8]) -> Vec<u8> {
    whole(FIN | kind.opcode(), payload)
}

/// A server's ping or pong; a payload longer than 125 bytes is cut.
#[must_use]
pub fn control(control: Control, payload: &[u8]) -> Vec<u8> {
    whole(FIN | opcode(control), payload.get(..CONTROL).unwrap_or(payload))
}

fn opcode(control: Control) -> u8 {
    match control {
        Control::Ping => PING,
        Control::Pong => PONG,
    }
}

/// The head of a frame, but for the mask.
fn head(first: u8, masked: u8, length: usize, out: &mut Vec<u8>) {
    match length {
        0..=125 => out.extend_from_slice(&[first, masked | length as u8]),
        126..=0xffff => {
            out.extend_from_slice(&[first, masked | 126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[first, masked | 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + 10);
    head(first, 0, payload.len(), out);
    out.extend_from_slice(payload);
}

fn whole(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(first, payload, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Decoder, Event, Limits};
    use super::*;

    fn agreed(takeover: bool, window_bits: u8) -> Deflate {
        Deflate {
            server_takeover: takeover,
            client_takeover: takeover,
            server_window_bits: window_bits,
            client_window_bits: window_bits,
            level: 3,
            threshold: 10,
        }
    }

    fn client_reads(deflate: &Deflate, bytes: &[u8]) -> Vec<Event> {
        let mut decoder = Decoder::new(Role::Client, Limits::default(), Some(deflate));
        let mut input = bytes;
        let mut events = Vec::new();
        while let Some(event) = decoder.next(&mut input).unwrap() {
            events.push(event);
        }
        events
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(message(Kind::Binary, &vec![1; length]).len(), head + length);
        }
        assert_eq!(message(Kind::Text, b"Hello"), b"\x81\x05Hello");
        assert_eq!(control(Control::Ping, b"Hello"), b"\x89\x05Hello");
        assert_eq!(control(Control::Pong, &[0; 200]).len(), 127);
    }

    #[test]
    fn close_and_control_frames_are_written() {
        let mut out = Vec::new();
        let mut encoder = Encoder::server(None);
        encoder.close(Some(1000), "bye", &mut out);
        encoder.close(Some(1005), "bye", &mut out);
        encoder.close(None, "bye", &mut out);
        assert_eq!(out, b"\x88\x05\x03\xe8bye\x88\x00\x88\x00");
        assert_eq!(encoder.control(Control::Ping, &[0; 126], &mut out), Err(Error::LongControl));
    }

    #[test]
    fn a_clients_frames_are_masked_each_with_its_own_key() {
        let mut out = Vec::new();
        let mut encoder = Encoder::client(None, 7);
        encoder.message(Kind::Text, b"Hello", &mut out);
        encoder.message(Kind::Text, b"Hello", &mut out);
        assert_eq!(out.len(), 22);
        assert_ne!(out[2..6], out[13..17]);
        let mut decoder = Decoder::new(Role::Server, Limits::default(), None);
        let mut input = &out[..];
        for _ in 0..2 {
            assert_eq!(decoder.next(&mut input), Ok(Some(Event::Text("Hello".into()))));
        }
    }

    #[test]
    fn short_messages_are_not_compressed() {
        let mut out = Vec::new();
        let mut encoder = Encoder::server(Some(&agreed(true, 15)));
        encoder.message(Kind::Text, b"aaaaaaaaa", &mut out);
        assert_eq!(out[0], 0x81);
        out.clear();
        encoder.message(Kind::Text, b"aaaaaaaaaa", &mut out);
        assert_eq!(out[0], 0xc1);
    }

    #[test]
    fn a_shared_message_is_framed_once_and_fits_between_others() {
        let text = "some text, some text, some text";
        let shared: SharedMessage<Arc<[u8]>> =
            SharedMessage::new(Kind::Text, text.into(), &DeflatePolicy::default());
        for deflate in [agreed(true, 15), agreed(false, 15), agreed(true, 9), agreed(false, 9)] {
            let mut encoder = Encoder::server(Some(&deflate));
            let mut bytes = Vec::new();
            for _ in 0..3 {
                encoder.message(Kind::Text, text.as_bytes(), &mut bytes);
                let piece = encoder.shared(&shared);
                assert!(Arc::ptr_eq(&piece, &encoder.shared(&shared)));
                assert_eq!(piece[0], 0xc1);
                bytes.extend_from_slice(&piece);
            }
            assert_eq!(client_reads(&deflate, &bytes), vec![Event::Text(text.into()); 6]);
        }
        assert_eq!(Encoder::server(None).shared(&shared)[0], 0x81);
        let long: SharedMessage<Arc<[u8]>> =
            SharedMessage::new(Kind::Text, text.repeat(20).into(), &DeflatePolicy::default());
        assert_eq!(Encoder::server(Some(&agreed(true, 9))).shared(&long)[0], 0x81);
        assert_eq!(Encoder::server(Some(&agreed(true, 10))).shared(&long)[0], 0xc1);
    }
}
