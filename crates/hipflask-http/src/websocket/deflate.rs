//! Compressing and decompressing messages (RFC 7692 §7.2).
//!
//! On `zlib-rs`: of the pure Rust implementations the one that keeps to a window smaller than 32 KiB, which
//! `server_max_window_bits` asks for.

use std::cell::RefCell;

use zlib_rs::{DeflateConfig, DeflateFlush, InflateFlush, Status};

use super::Error;
use super::extension::Deflate;

/// What every compressed message ends with and none is sent with (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Memory for a compressor's symbols: 8 to 9 halve the gain per byte from here on.
const MEMORY_LEVEL: i32 = 6;
const LARGEST_WINDOW: u8 = 15;
const WINDOW: usize = 1 << LARGEST_WINDOW;

thread_local! {
    /// What connections without context takeover share: a thread handles one message at a time.
    static SPARE_COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static SPARE_INFLATE: RefCell<Option<Box<zlib_rs::Inflate>>> = const { RefCell::new(None) };
}

struct Compressor {
    window_bits: u8,
    level: u8,
    stream: Box<zlib_rs::Deflate>,
}

impl Compressor {
    fn new(window_bits: u8, level: u8) -> Self {
        let config = DeflateConfig {
            level: i32::from(level),
            window_bits: -i32::from(window_bits),
            mem_level: MEMORY_LEVEL,
            ..DeflateConfig::default()
        };
        Compressor { window_bits, level, stream: Box::new(zlib_rs::Deflate::new_with_config(config)) }
    }

    /// Appends the compressed bytes, without the tail.
    fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let mut rest = payload;
        // Room for bytes that do not compress: 5 bytes of head per stored block, and the tail.
        let mut room = payload.len() + payload.len() / 1024 + 32;
        loop {
            let at = out.len();
            out.resize(at + room, 0);
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let place = out.get_mut(at..).unwrap_or_default();
            let result = self.stream.compress(rest, place, DeflateFlush::SyncFlush);
            let taken = (self.stream.total_in() - taken) as usize;
            let made = (self.stream.total_out() - made) as usize;
            out.truncate(at + made);
            rest = rest.get(taken..).unwrap_or_default();
            if made < room || result.is_err() {
                break;
            }
            room = 4096;
        }
        if out.ends_with(&TAIL) && out.len() >= start + TAIL.len() {
            out.truncate(out.len() - TAIL.len());
        }
        if out.len() == start {
            // RFC 7692 §7.2.3.6: nothing, compressed.
            out.push(0);
        }
    }
}

/// Compresses one end's messages.
pub(super) struct Deflater {
    window_bits: u8,
    level: u8,
    takeover: bool,
    kept: Option<Compressor>,
}

impl Deflater {
    pub(super) fn new(window_bits: u8, level: u8, takeover: bool) -> Self {
        Deflater { window_bits, level, takeover, kept: None }
    }

    pub(super) fn window_bits(&self) -> u8 {
        self.window_bits
    }

    /// Forgets the messages before, which every decompressor allows: the next message refers to itself alone.
    pub(super) fn forget(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.stream.reset();
        }
    }

    /// Appends a whole message, compressed.
    pub(super) fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if self.takeover {
            let (window_bits, level) = (self.window_bits, self.level);
            self.kept.get_or_insert_with(|| Compressor::new(window_bits, level)).compress(payload, out);
        } else {
            compress_alone(self.window_bits, self.level, payload, out);
        }
    }
}

/// Appends a message, compressed without a look at others.
pub(super) fn compress_alone(window_bits: u8, level: u8, payload: &[u8], out: &mut Vec<u8>) {
    SPARE_COMPRESSOR.with(|spare| {
        let taken = spare.try_borrow_mut().ok().and_then(|mut spare| spare.take());
        let mut compressor = match taken {
            Some(mut spare) if spare.window_bits == window_bits && spare.level == level => {
                spare.stream.reset();
                spare
            }
            _ => Compressor::new(window_bits, level),
        };
        compressor.compress(payload, out);
        if let Ok(mut spare) = spare.try_borrow_mut() {
            *spare = Some(compressor);
        }
    });
}

/// Decompresses one end's messages.
pub(super) struct Inflater {
    takeover: bool,
    stream: Option<Box<zlib_rs::Inflate>>,
    /// Whether a block that called itself the last has just ended.
    ended: bool,
}

impl Inflater {
    pub(super) fn new(takeover: bool) -> Self {
        Inflater { takeover, stream: None, ended: false }
    }

    /// Appends what `input`, a piece of a message, decompresses to; at most `limit` bytes may then be in `message`.
    pub(super) fn decompress(
        &mut self,
        mut input: &[u8],
        message: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), Error> {
        let stream = self.stream.get_or_insert_with(spare_inflate);
        let mut step = (input.len() * 4).clamp(256, 64 * 1024);
        loop {
            if self.ended && !input.is_empty() {
                // RFC 7692 §7.2.3.4: a block marked as the last is not the last of the message. The stream begins
                // anew, and what was said so far stays known.
                stream.reset(false);
                let known = message.get(message.len().saturating_sub(WINDOW)..).unwrap_or_default();
                if !known.is_empty() && stream.set_dictionary(known).is_err() {
                    return Err(Error::BadDeflate);
                }
                self.ended = false;
            }
            let at = message.len();
            // One byte more than is allowed tells a message that fits from one that does not.
            let room = step.min(limit.saturating_sub(at).saturating_add(1));
            message.resize(at + room, 0);
            let (taken, made) = (stream.total_in(), stream.total_out());
            let place = message.get_mut(at..).unwrap_or_default();
            let result = stream.decompress(input, place, InflateFlush::NoFlush);
            let taken = (stream.total_in() - taken) as usize;
            let made = (stream.total_out() - made) as usize;
            message.truncate(at + made);
            input = input.get(taken..).unwrap_or_default();
            // What came out before a fault counts first, so that the error does not depend on how the bytes arrived.
            if message.len() > limit {
                return Err(Error::LongMessage);
            }
            let status = result.map_err(|_| Error::BadDeflate)?;
            self.ended = status == Status::StreamEnd;
            if self.ended {
                if input.is_empty() {
                    return Ok(());
                }
            } else if made < room {
                // Room was left, so everything was taken.
                return if input.is_empty() { Ok(()) } else { Err(Error::BadDeflate) };
            }
            step = (step * 2).min(64 * 1024);
        }
    }

    /// Ends a message.
    pub(super) fn finish(&mut self, message: &mut Vec<u8>, limit: usize) -> Result<(), Error> {
        if !self.ended {
            self.decompress(&TAIL, message, limit)?;
        }
        if self.takeover && self.ended {
            // The block that called itself the last was the message's end: what follows may refer to it.
            self.decompress(&[0, 0, 0, 0xff, 0xff], message, limit)?;
        }
        if !self.takeover
            && let Some(stream) = self.stream.take()
        {
            self.ended = false;
            SPARE_INFLATE.with(|spare| {
                if let Ok(mut spare) = spare.try_borrow_mut() {
                    *spare = Some(stream);
                }
            });
        }
        Ok(())
    }
}

fn spare_inflate() -> Box<zlib_rs::Inflate> {
    let spare = SPARE_INFLATE.with(|spare| spare.try_borrow_mut().ok().and_then(|mut spare| spare.take()));
    match spare {
        Some(mut stream) => {
            stream.reset(false);
            stream
        }
        None => Box::new(zlib_rs::Inflate::new(false, LARGEST_WINDOW)),
    }
}

impl Deflate {
    /// What compresses a server's messages.
    pub(super) fn server_deflater(&self) -> Deflater {
        Deflater::new(self.server_window_bits, self.level, self.server_takeover)
    }

    /// What compresses a client's messages.
    pub(super) fn client_deflater(&self) -> Deflater {
        Deflater::new(self.client_window_bits, self.level, self.client_takeover)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(takeover: bool, messages: &[&[u8]]) -> Result<Vec<Vec<u8>>, Error> {
        let mut inflater = Inflater::new(takeover);
        let mut all = Vec::new();
        for message in messages {
            let mut out = Vec::new();
            inflater.decompress(message, &mut out, 1000)?;
            inflater.finish(&mut out, 1000)?;
            all.push(out);
        }
        Ok(all)
    }

    #[test]
    fn the_examples_of_rfc_7692_are_read() {
        let fixed: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let again: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];
        let stored: &[u8] = &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let last: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let two_blocks: &[u8] =
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        for takeover in [false, true] {
            for message in [fixed, stored, last, two_blocks] {
                assert_eq!(inflate(takeover, &[message]), Ok(vec![b"Hello".to_vec()]));
            }
            assert_eq!(inflate(takeover, &[last, stored, last]).map(|all| all.len()), Ok(3));
            assert_eq!(inflate(takeover, &[b"\0"]), Ok(vec![Vec::new()]));
        }
        assert_eq!(inflate(true, &[fixed, again]), Ok(vec![b"Hello".to_vec(), b"Hello".to_vec()]));
        // Without takeover there is nothing to refer to.
        assert_eq!(inflate(false, &[fixed, again]), Err(Error::BadDeflate));
        // After a block that calls itself the last, what was said stays known.
        assert_eq!(inflate(true, &[last, again]).map(|all| all[1].clone()), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn what_is_compressed_for_a_small_window_does_not_look_back_further() {
        let mut noise = 1_u32;
        let unit: Vec<u8> = (0..700)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        let payload = unit.repeat(3);
        for (bits, small) in [(9, false), (10, true), (15, true)] {
            let mut out = Vec::new();
            Deflater::new(bits, 6, true).compress(&payload, &mut out);
            // 700 bytes back is outside a window of 512 bytes.
            assert_eq!(out.len() < 1000, small, "{bits}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut bomb = Vec::new();
        compress_alone(15, 9, &vec![0; 10_000_000], &mut bomb);
        assert!(bomb.len() < 20_000);
        let mut out = Vec::new();
        let mut inflater = Inflater::new(false);
        assert_eq!(inflater.decompress(&bomb, &mut out, 100_000), Err(Error::LongMessage));
        assert!(out.len() <= 100_001 && out.capacity() < 400_000);
        let mut exact = Vec::new();
        compress_alone(15, 9, &[0; 1000], &mut exact);
        for (limit, result) in [(999, Err(Error::LongMessage)), (1000, Ok(()))] {
            let mut inflater = Inflater::new(false);
            let mut out = Vec::new();
            let all = inflater.decompress(&exact, &mut out, limit);
            assert_eq!(all.and_then(|()| inflater.finish(&mut out, limit)), result, "{limit}");
        }
    }

    #[test]
    fn forgetting_makes_messages_independent() {
        let mut deflater = Deflater::new(15, 6, true);
        let mut first = Vec::new();
        let mut second = Vec::new();
        deflater.compress(b"Hello, hello, Hello", &mut first);
        deflater.forget();
        deflater.compress(b"Hello, hello, Hello", &mut second);
        assert_eq!(first, second);
        assert_eq!(inflate(false, &[&second, &first]).map(|all| all.len()), Ok(2));
    }
}
