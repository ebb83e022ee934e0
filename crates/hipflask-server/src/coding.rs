//! Compressing: brotli, zstd and gzip behind one face.
//!
//! Whole bodies and streams. Knows nothing of requests: which coding, and whether at all, is decided elsewhere.

use std::cell::RefCell;
use std::io::{self, Write as _};

use hipflask_http::Coding;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};
use zstd::zstd_safe::CParameter;

/// Which codings responses made for one client get, where the client likes several equally: of 100 KiB zstd takes a third of
/// gzip's time, for a result 5 % larger. `benches/compression.py` measures.
pub(crate) const QUICK: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For one client, who waits: more would take longer than it saves on the way.
    Once,
    /// For many clients: the result is kept in memory.
    Kept,
    /// For files made beforehand: as small as can be.
    Best,
    /// The coding's own measure, for comparisons; otherwise as [`Effort::Once`].
    Level(i32),
}

impl Effort {
    /// The coding's own measure.
    fn level(self, coding: Coding) -> i32 {
        match (self, coding) {
            (Effort::Level(level), _) => level,
            (Effort::Once, Coding::Brotli) => 4,
            (Effort::Once, Coding::Zstd) => 3,
            (Effort::Once, Coding::Gzip) => 4,
            (Effort::Kept, Coding::Brotli) => 9,
            (Effort::Kept, Coding::Zstd) => 12,
            (Effort::Kept | Effort::Best, Coding::Gzip) => 9,
            (Effort::Best, Coding::Brotli) => 11,
            (Effort::Best, Coding::Zstd) => 19,
        }
    }
}

/// The window of streams and of what is compressed once: 256 KiB. A larger one finds little more in a page and takes
/// megabytes for each stream.
const WINDOW_LOG: i32 = 18;
/// RFC 9659: no decoder of the web need have more than 8 MiB.
const LARGEST_WINDOW_LOG: u32 = 23;
/// Brotli's largest.
const BROTLI_LARGEST: i32 = 24;
/// RFC 1952 around a window of 32 KiB, as zlib counts it.
const GZIP_WINDOW: i32 = 15 + 16;
/// zlib's usual.
const GZIP_MEMORY: i32 = 8;

/// Compresses a whole body.
///
/// # Errors
///
/// Memory is short.
pub fn compress(coding: Coding, effort: Effort, body: &[u8]) -> io::Result<Vec<u8>> {
    match (coding, effort) {
        (Coding::Zstd, Effort::Once) => compress_zstd_once(body),
        (Coding::Gzip, Effort::Once) => compress_gzip_once(body),
        _ => {
            let mut compressor = Compressor::with_hint(coding, effort, Some(body.len()))?;
            let mut out = Vec::with_capacity(body.len() / 4 + 64);
            compressor.write(body, &mut out)?;
            compressor.finish(&mut out)?;
            Ok(out)
        }
    }
}

thread_local! {
    /// What each body would else have to allocate and clear: 270 KiB and more.
    static SPARE_ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static SPARE_GZIP: RefCell<Option<Box<Deflate>>> = const { RefCell::new(None) };
}

fn compress_zstd_once(body: &[u8]) -> io::Result<Vec<u8>> {
    let spare = SPARE_ZSTD.with(|spare| spare.try_borrow_mut().ok().and_then(|mut spare| spare.take()));
    let mut compressor = match spare {
        Some(compressor) => compressor,
        None => zstd::bulk::Compressor::new(Effort::Once.level(Coding::Zstd))?,
    };
    let compressed = compressor.compress(body);
    SPARE_ZSTD.with(|spare| spare.try_borrow_mut().map(|mut spare| spare.replace(compressor)).ok());
    compressed
}

fn compress_gzip_once(body: &[u8]) -> io::Result<Vec<u8>> {
    let spare = SPARE_GZIP.with(|spare| spare.try_borrow_mut().ok().and_then(|mut spare| spare.take()));
    let mut stream = match spare {
        Some(mut stream) => {
            stream.reset();
            stream
        }
        None => gzip(Effort::Once),
    };
    let mut out = Vec::new();
    let result = deflate(&mut stream, body, DeflateFlush::Finish, &mut out);
    SPARE_GZIP.with(|spare| spare.try_borrow_mut().map(|mut spare| spare.replace(stream)).ok());
    result.map(|()| out)
}

fn gzip(effort: Effort) -> Box<Deflate> {
    Box::new(Deflate::new_with_config(DeflateConfig {
        level: effort.level(Coding::Gzip),
        window_bits: GZIP_WINDOW,
        mem_level: GZIP_MEMORY,
        ..DeflateConfig::default()
    }))
}

/// Gives the stream `input`, and appends what it makes.
fn deflate(stream: &mut Deflate, input: &[u8], flush: DeflateFlush, out: &mut Vec<u8>) -> io::Result<()> {
    let mut rest = input;
    let mut room = input.len() / 2 + 64;
    loop {
        let at = out.len();
        out.resize(at + room, 0);
        let (taken, made) = (stream.total_in(), stream.total_out());
        let result = stream.compress(rest, out.get_mut(at..).unwrap_or_default(), flush);
        let taken = (stream.total_in() - taken) as usize;
        let made = (stream.total_out() - made) as usize;
        out.truncate(at + made);
        rest = rest.get(taken..).unwrap_or_default();
        if made < room {
            // It had room left, so it has said all.
            return match result {
                Ok(_) => Ok(()),
                // Nothing to flush since the last time.
                Err(_) if rest.is_empty() && made == 0 => Ok(()),
                Err(error) => Err(io::Error::other(error.as_str())),
            };
        }
        room = (rest.len() / 2).max(4096);
    }
}

type BrotliWriter = brotli::CompressorWriter<Vec<u8>>;

/// Compresses piece by piece.
pub(crate) struct Compressor(Inner);

enum Inner {
    Brotli(Box<BrotliWriter>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Gzip(Box<Deflate>),
    Ended,
}

impl Compressor {
    /// For a stream whose length nobody knows.
    pub(crate) fn new(coding: Coding) -> io::Result<Compressor> {
        Compressor::with_hint(coding, Effort::Once, None)
    }

    fn with_hint(coding: Coding, effort: Effort, length: Option<usize>) -> io::Result<Compressor> {
        let level = effort.level(coding);
        Ok(Compressor(match coding {
            Coding::Brotli => {
                let needed = length.map_or(WINDOW_LOG, |length| length.max(1 << 10).ilog2() as i32 + 1);
                let is_kept = matches!(effort, Effort::Kept | Effort::Best);
                let most = if is_kept { BROTLI_LARGEST } else { WINDOW_LOG };
                let params = brotli::enc::BrotliEncoderParams {
                    quality: level,
                    lgwin: needed.min(most),
                    size_hint: length.unwrap_or(0),
                    ..brotli::enc::BrotliEncoderParams::default()
                };
                Inner::Brotli(Box::new(BrotliWriter::with_params(Vec::new(), 4096, &params)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                if let Some(length) = length {
                    encoder.set_pledged_src_size(Some(length as u64))?;
                    let needed = length.max(1 << 10).ilog2() + 1;
                    if needed > LARGEST_WINDOW_LOG {
                        encoder.set_parameter(CParameter::WindowLog(LARGEST_WINDOW_LOG))?;
                    }
                } else {
                    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG as u32))?;
                }
                Inner::Zstd(Box::new(encoder))
            }
            Coding::Gzip => Inner::Gzip(gzip(effort)),
        }))
    }

    /// Takes a piece; what comes of it is appended to `out`, now or with a later one.
    pub(crate) fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Inner::Brotli(writer) => {
                writer.write_all(piece)?;
                out.append(writer.get_mut());
            }
            Inner::Zstd(encoder) => {
                encoder.write_all(piece)?;
                out.append(encoder.get_mut());
            }
            Inner::Gzip(stream) => deflate(stream, piece, DeflateFlush::NoFlush, out)?,
            Inner::Ended => {}
        }
        Ok(())
    }

    /// Appends all that was taken so far, so that the client can read it.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Inner::Brotli(writer) => {
                writer.flush()?;
                out.append(writer.get_mut());
            }
            Inner::Zstd(encoder) => {
                encoder.flush()?;
                out.append(encoder.get_mut());
            }
            Inner::Gzip(stream) => deflate(stream, &[], DeflateFlush::SyncFlush, out)?,
            Inner::Ended => {}
        }
        Ok(())
    }

    /// Appends the rest and the end.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match std::mem::replace(&mut self.0, Inner::Ended) {
            Inner::Brotli(writer) => out.append(&mut writer.into_inner()),
            Inner::Zstd(encoder) => out.append(&mut encoder.finish()?),
            Inner::Gzip(mut stream) => deflate(&mut stream, &[], DeflateFlush::Finish, out)?,
            Inner::Ended => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Brotli => {
                brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain).unwrap();
            }
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain).unwrap();
            }
            Coding::Gzip => {
                plain = vec![0; 4 << 20];
                let mut inflate = zlib_rs::Inflate::new(true, 31);
                let _ = inflate.decompress(bytes, &mut plain, zlib_rs::InflateFlush::NoFlush).unwrap();
                plain.truncate(inflate.total_out() as usize);
            }
        }
        plain
    }

    /// Text that compresses, and bytes that do not.
    fn samples() -> Vec<Vec<u8>> {
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let text: Vec<u8> = (0..40_000).flat_map(|n: u32| format!("line {n}, ").into_bytes()).collect();
        vec![Vec::new(), b"a".to_vec(), b"hello ".repeat(300), text, noise.take(300_000).collect()]
    }

    #[test]
    fn what_is_compressed_can_be_read_again() {
        for coding in Coding::ALL {
            for effort in [Effort::Once, Effort::Kept, Effort::Once] {
                for sample in samples() {
                    let small = compress(coding, effort, &sample).unwrap();
                    assert_eq!(decode(coding, &small), sample, "{coding:?} {effort:?} {}", sample.len());
                }
            }
        }
    }

    #[test]
    fn a_flushed_piece_can_be_read_before_the_next_one() {
        for coding in Coding::ALL {
            let mut compressor = Compressor::new(coding).unwrap();
            let mut out = Vec::new();
            for piece in [&b"first"[..], b"", b"second"] {
                compressor.write(piece, &mut out).unwrap();
                compressor.flush(&mut out).unwrap();
                compressor.flush(&mut out).unwrap();
            }
            let mut plain = [0; 11];
            match coding {
                Coding::Brotli => brotli::Decompressor::new(&out[..], 4096).read_exact(&mut plain).unwrap(),
                Coding::Zstd => {
                    zstd::stream::read::Decoder::new(&out[..]).unwrap().read_exact(&mut plain).unwrap();
                }
                Coding::Gzip => plain.copy_from_slice(&decode(coding, &out)),
            }
            assert_eq!(&plain, b"firstsecond", "{coding:?}");
            compressor.finish(&mut out).unwrap();
            assert_eq!(decode(coding, &out), b"firstsecond", "{coding:?}");
        }
    }
}
