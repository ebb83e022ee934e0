//! The frames of an HTTP/2 client, watched as they pass (RFC 9113 §4.1).
//!
//! Whoever reads the frames finds out what is wrong with them too, but need not tell which rule is broken; here are the
//! rules for which the RFC has a code of its own: sizes (§6), what follows the end of a stream (§5.1), and windows
//! that are too large (§6.5.2). Does not read header blocks, nor count what flow control allows.

use std::collections::HashSet;

/// Length of a frame's head.
const HEAD: usize = 9;
/// Length of one setting.
const SETTING: usize = 6;
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW: u16 = 4;
/// Streams whose end has not come, at most, before those that end are no longer told from others. A client that opens so
/// many without being allowed to is refused elsewhere.
const MOST: usize = 4096;
/// Streams that are known to have been there. A number left out is in error in another way than one that was used.
const RECENT: usize = 64;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// PUSH_PROMISE, which no client sends (§8.4): it need not wait for the rest of its header block.
    Promise,
    /// A length that frames of its kind do not have.
    Size,
    /// HEADERS or DATA on a stream that the client has ended.
    StreamClosed,
    /// A setting for a window above 2^31-1.
    FlowControl,
}

impl FrameError {
    /// The error code (RFC 9113 §7).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            FrameError::Promise => 1,
            FrameError::FlowControl => 3,
            FrameError::StreamClosed => 5,
            FrameError::Size => 6,
        }
    }
}

/// Watches the bytes of one connection, beginning behind the preface.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; HEAD],
    /// How much of `head` has come.
    had: usize,
    /// What is left of the current frame's payload.
    left: usize,
    /// The payload is a list of settings, of whose current one so many bytes have come.
    settings: Option<([u8; SETTING], usize)>,
    /// The highest stream that has begun.
    last: u32,
    /// The last ones that have, each at its number's place.
    recent: Vec<u32>,
    /// A header block is under way, and only its next part may follow.
    in_block: bool,
    /// Streams that the client has begun and not ended.
    open: HashSet<u32>,
    /// There were too many of them.
    lost_count: bool,
}

impl Frames {
    /// The highest stream that has begun.
    #[must_use]
    pub fn last_stream(&self) -> u32 {
        self.last
    }

    /// Watches the next bytes.
    ///
    /// # Errors
    /// What is wrong, and how many of the bytes come before the frame in which it is; nothing behind counts.
    pub fn watch(&mut self, bytes: &[u8]) -> Result<(), (usize, FrameError)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let count = self.left.min(bytes.len() - at);
                let payload = bytes.get(at..at + count).unwrap_or_default();
                self.left -= count;
                if self.settings.is_some() {
                    self.read_settings(payload).map_err(|error| (at, error))?;
                }
                at += count;
                continue;
            }
            let begin = at;
            let wanted = HEAD - self.had;
            let part = bytes.get(at..(at + wanted).min(bytes.len())).unwrap_or_default();
            for (to, from) in self.head.iter_mut().skip(self.had).zip(part) {
                *to = *from;
            }
            at += part.len();
            self.had += part.len();
            if self.had == HEAD {
                self.had = 0;
                self.begin_frame().map_err(|error| (begin, error))?;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<(), FrameError> {
        let [a, b, c, kind, flags, w, x, y, z] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([w, x, y, z]) & 0x7fff_ffff;
        self.left = length;
        self.settings = None;
        let fits = match kind {
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            PING => length == 8,
            GOAWAY => length >= 8,
            SETTINGS if flags & ACK != 0 => length == 0,
            SETTINGS => length.is_multiple_of(SETTING),
            _ => true,
        };
        if !fits {
            return Err(FrameError::Size);
        }
        if self.in_block {
            self.in_block = kind != CONTINUATION || flags & END_HEADERS == 0;
            return Ok(());
        }
        match kind {
            PUSH_PROMISE => return Err(FrameError::Promise),
            SETTINGS => self.settings = Some(([0; SETTING], 0)),
            RST_STREAM => _ = self.open.remove(&stream),
            HEADERS | DATA => {
                let begins = kind == HEADERS && stream > self.last;
                if !begins && stream <= self.last && !self.is_open(stream) && self.was_there(stream) {
                    return Err(FrameError::StreamClosed);
                }
                self.in_block = kind == HEADERS && flags & END_HEADERS == 0;
                if begins {
                    self.last = stream;
                    self.recent.resize(RECENT, 0);
                    if let Some(place) = self.recent.get_mut(stream as usize / 2 % RECENT) {
                        *place = stream;
                    }
                }
                if flags & END_STREAM != 0 {
                    self.open.remove(&stream);
                } else if begins {
                    self.lost_count |= self.open.len() >= MOST;
                    if self.lost_count {
                        self.open = HashSet::new();
                    } else {
                        self.open.insert(stream);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_open(&self, stream: u32) -> bool {
        self.lost_count || self.open.contains(&stream)
    }

    fn was_there(&self, stream: u32) -> bool {
        stream % 2 == 1 && self.recent.contains(&stream)
    }

    fn read_settings(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let Some((setting, had)) = &mut self.settings else { return Ok(()) };
        for byte in payload {
            if let Some(place) = setting.get_mut(*had) {
                *place = *byte;
            }
            *had += 1;
            if *had == SETTING {
                *had = 0;
                let [a, b, w, x, y, z] = *setting;
                let value = u32::from_be_bytes([w, x, y, z]);
                if u16::from_be_bytes([a, b]) == INITIAL_WINDOW && value > 0x7fff_ffff {
                    return Err(FrameError::FlowControl);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    /// Whole, and byte by byte.
    fn watch(frames: &[Vec<u8>]) -> Result<(), FrameError> {
        let bytes = frames.concat();
        let whole = Frames::default().watch(&bytes);
        let mut split = Frames::default();
        let pieces = bytes.iter().try_for_each(|byte| split.watch(&[*byte]).map_err(|(_, error)| error));
        assert_eq!(whole.map_err(|(_, error)| error), pieces);
        if let Err((at, _)) = whole {
            // What comes before is fine.
            assert_eq!(Frames::default().watch(&bytes[..at]), Ok(()));
        }
        pieces
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let window = |value: u32| [&[0, 4][..], &value.to_be_bytes()].concat();
        for (kind, flags, payload, found) in [
            (PING, 0, vec![0; 8], Ok(())),
            (PING, 0, vec![0; 7], Err(FrameError::Size)),
            (PING, 0, vec![], Err(FrameError::Size)),
            (PRIORITY, 0, vec![0; 5], Ok(())),
            (PRIORITY, 0, vec![0; 4], Err(FrameError::Size)),
            (RST_STREAM, 0, vec![0; 4], Ok(())),
            (RST_STREAM, 0, vec![0; 3], Err(FrameError::Size)),
            (WINDOW_UPDATE, 0, vec![0; 4], Ok(())),
            (WINDOW_UPDATE, 0, vec![0; 5], Err(FrameError::Size)),
            (GOAWAY, 0, vec![0; 20], Ok(())),
            (GOAWAY, 0, vec![0; 7], Err(FrameError::Size)),
            (SETTINGS, 0, vec![], Ok(())),
            (SETTINGS, ACK, vec![], Ok(())),
            (SETTINGS, ACK, vec![0; 6], Err(FrameError::Size)),
            (SETTINGS, 0, vec![0; 3], Err(FrameError::Size)),
            (SETTINGS, 0, window(0x7fff_ffff), Ok(())),
            (SETTINGS, 0, window(0x8000_0000), Err(FrameError::FlowControl)),
            (SETTINGS, 0, [window(1), window(u32::MAX)].concat(), Err(FrameError::FlowControl)),
            (PUSH_PROMISE, 0, vec![0; 8], Err(FrameError::Promise)),
            (0xfa, 0xff, vec![1; 3], Ok(())),
        ] {
            let good = frame(PING, 0, 0, &[0; 8]);
            assert_eq!(watch(&[good, frame(kind, flags, 0, &payload)]), found, "{kind} {payload:?}");
        }
    }

    #[test]
    fn nothing_follows_the_end_of_a_stream() {
        let closed = Err(FrameError::StreamClosed);
        let get = |stream| frame(HEADERS, END_STREAM | 4, stream, b"x");
        let post = |stream| frame(HEADERS, 4, stream, b"x");
        let data = |stream, flags| frame(DATA, flags, stream, b"x");
        let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
        for (frames, found) in [
            (vec![get(1), get(3), get(99)], Ok(())),
            (vec![get(1), get(1)], closed),
            (vec![get(1), data(1, 0)], closed),
            (vec![get(3), get(5), get(3)], closed),
            (vec![post(1), data(1, 0), data(1, END_STREAM)], Ok(())),
            (vec![post(1), data(1, END_STREAM), data(1, 0)], closed),
            // Trailers.
            (vec![post(1), data(1, 0), get(1)], Ok(())),
            (vec![post(1), get(1), get(1)], closed),
            (vec![post(1), post(3), data(1, 0), data(3, 0)], Ok(())),
            (vec![post(1), reset.clone(), data(1, 0)], closed),
            (vec![post(1), reset.clone(), get(3)], Ok(())),
            (vec![get(1), reset.clone(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], Ok(())),
            // Other errors are for others to find: a number left out, a block cut in two.
            (vec![get(5), get(3)], Ok(())),
            (vec![frame(HEADERS, END_STREAM, 1, b"x"), data(1, 0), get(1)], Ok(())),
            (vec![frame(HEADERS, END_STREAM, 1, b"x"), frame(CONTINUATION, 4, 1, b""), get(1)], closed),
            (vec![data(1, 0)], Ok(())),
            (vec![get(5), get(2)], Ok(())),
            (vec![data(0, 0)], Ok(())),
        ] {
            assert_eq!(watch(&frames), found, "{frames:?}");
        }
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut frames = Frames::default();
        for stream in 0..2 * MOST as u32 {
            assert_eq!(frames.watch(&frame(HEADERS, 4, 2 * stream + 1, b"x")), Ok(()));
        }
        assert!(frames.open.is_empty());
        assert_eq!(frames.last_stream(), 4 * MOST as u32 - 1);
        assert_eq!(frames.watch(&frame(DATA, 0, 1, b"x")), Ok(()));
    }
}
