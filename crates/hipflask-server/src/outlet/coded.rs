//! Outlets whose bodies are compressed.
//!
//! What is given waits as it is until a worker compresses it: the thread that gives may be an event loop's, or attached.
//! All that has come meanwhile is one flush, so that the client can read it at once. What waits counts as queued.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, MutexGuard};

use hipflask_http::response::BodyFraming;
use hipflask_http::{Coding, Trailers};

use super::{BODY_END, CHUNK_END, Framing, Piece, Shared, Slice, Stage, State};
use crate::coding::Compressor;
use crate::pool::Chore;

/// Gives a chore to a worker. Must not block.
pub(crate) type Delegate = Arc<dyn Fn(Chore) + Send + Sync>;

/// Compressed at once, at most: others see to their pieces between, and memory stays small.
const MOST: usize = 256 * 1024;

/// What an outlet has to compress, and with what.
pub(super) struct Coder {
    coding: Coding,
    /// There is none before the first piece, and while a worker has it.
    compressor: Option<Box<Compressor>>,
    plain: VecDeque<Slice>,
    /// Bytes that are still to come, if the application has said how many.
    owed: Option<u64>,
    /// The last piece is among `plain`.
    finishing: bool,
    /// A worker is at it, or is about to be.
    busy: bool,
    delegate: Delegate,
}

impl Coder {
    /// Takes a piece; how many bytes wait more.
    pub(super) fn take(&mut self, piece: Piece) -> usize {
        let slice = piece.plain(self.owed.unwrap_or(u64::MAX));
        let length = slice.length();
        if let Some(owed) = &mut self.owed {
            *owed -= length as u64;
        }
        if length > 0 {
            self.plain.push_back(slice);
        }
        length
    }

    /// Takes the end; false if the application has said that more would come.
    pub(super) fn finish(&mut self) -> bool {
        self.finishing = true;
        self.owed.is_none_or(|owed| owed == 0)
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// What is compressed next, and whether that is the last.
    fn next(&mut self) -> (Vec<Slice>, bool) {
        let mut length = 0;
        let mut pieces = Vec::new();
        while length < MOST
            && let Some(slice) = self.plain.pop_front()
        {
            length += slice.length();
            pieces.push(slice);
        }
        (pieces, self.finishing && self.plain.is_empty())
    }
}

impl Shared {
    /// Has the body compressed from here on, and framed otherwise: what was given so far has not gone out. False if it
    /// is over.
    pub(crate) fn compress(
        self: &Arc<Self>,
        coding: Coding,
        framing: BodyFraming,
        delegate: Delegate,
    ) -> bool {
        let mut state = self.lock();
        let finishing = state.stage == Stage::Finishing;
        if !finishing && state.stage != Stage::Open {
            return false;
        }
        let (is_chunked, owed) = match state.framing {
            Framing::Chunked => (true, None),
            Framing::Plain => (false, None),
            Framing::Length(left) => (false, Some(left)),
        };
        let mut plain = std::mem::take(&mut state.queue);
        if is_chunked {
            plain.retain_mut(Slice::take_frame_off);
        }
        state.framing = if framing == BodyFraming::Chunked { Framing::Chunked } else { Framing::Plain };
        state.stage = Stage::Open;
        state.queued = plain.iter().map(Slice::length).sum();
        let coder = Coder { coding, compressor: None, plain, owed, finishing, busy: false, delegate };
        state.coder = Some(Box::new(coder));
        self.delegate(state);
        true
    }

    /// Has a worker compress what waits, unless one does.
    pub(super) fn delegate(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let Some(coder) = &mut state.coder else { return };
        if coder.busy || (coder.plain.is_empty() && !coder.finishing) {
            return;
        }
        coder.busy = true;
        let delegate = Arc::clone(&coder.delegate);
        drop(state);
        let shared = Arc::clone(self);
        delegate(Box::new(move || shared.work_off()));
    }

    /// Compresses what waits. Detached.
    fn work_off(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let is_open = state.stage == Stage::Open;
            let Some(coder) = state.coder.as_mut().filter(|_| is_open) else {
                state.coder = None;
                return;
            };
            if coder.plain.is_empty() && !coder.finishing {
                coder.busy = false;
                return;
            }
            let (pieces, is_last) = coder.next();
            let (coding, compressor) = (coder.coding, coder.compressor.take());
            drop(state);
            let made = compress(coding, compressor, &pieces, is_last);
            let taken: usize = pieces.iter().map(Slice::length).sum();
            drop(pieces);
            let mut state = self.lock();
            state.queued = state.queued.saturating_sub(taken);
            if state.stage != Stage::Open {
                state.coder = None;
                return;
            }
            match made {
                Ok((compressor, bytes)) => {
                    state.queue(Piece::from(bytes));
                    if is_last {
                        state.coder = None;
                        state.finish(&Trailers::new());
                    } else if let Some(coder) = &mut state.coder {
                        coder.compressor = Some(compressor);
                    }
                }
                // Memory is short.
                Err(_) => {
                    state.coder = None;
                    state.stage = Stage::Aborting;
                }
            }
            let goes_on = state.coder.is_some();
            self.wake(state);
            self.took(0);
            if !goes_on {
                return;
            }
        }
    }
}

impl Slice {
    /// Leaves the payload of a chunk. False for what ends a body.
    fn take_frame_off(&mut self) -> bool {
        let Some(end) = self.bytes().iter().position(|byte| *byte == b'\n') else { return true };
        if self.bytes() == BODY_END {
            return false;
        }
        self.from += end + 1;
        self.to -= CHUNK_END.len();
        true
    }
}

fn compress(
    coding: Coding,
    compressor: Option<Box<Compressor>>,
    pieces: &[Slice],
    is_last: bool,
) -> io::Result<(Box<Compressor>, Vec<u8>)> {
    let mut compressor = match compressor {
        Some(compressor) => compressor,
        None => Box::new(Compressor::new(coding)?),
    };
    let mut out = Vec::new();
    for piece in pieces {
        compressor.write(piece.bytes(), &mut out)?;
    }
    if is_last {
        compressor.finish(&mut out)?;
    } else {
        compressor.flush(&mut out)?;
    }
    Ok((compressor, out))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::super::{Outlet, OutletError};
    use super::*;
    use crate::locked;

    type Chores = Arc<Mutex<Vec<Chore>>>;

    /// An outlet that is compressed, and what would be done for it elsewhere.
    fn coded(framing: BodyFraming, before: &[&[u8]], finished: bool) -> (Outlet, Chores, bool) {
        let outlet = Outlet::new(framing, 1000, false);
        for piece in before {
            outlet.send(Piece::new(piece)).unwrap();
        }
        if finished {
            outlet.finish();
        }
        let chores = Chores::default();
        let queue = Arc::clone(&chores);
        let delegate: Delegate = Arc::new(move |chore| locked(&queue).push(chore));
        let done = outlet.shared().compress(Coding::Gzip, BodyFraming::Close, delegate);
        (outlet, chores, done)
    }

    fn work(chores: &Chores) -> usize {
        let waiting = std::mem::take(&mut *locked(chores));
        let count = waiting.len();
        waiting.into_iter().for_each(|chore| chore());
        count
    }

    fn read(outlet: &Outlet, compressed: &mut Vec<u8>) -> Vec<u8> {
        let mut going = VecDeque::new();
        outlet.shared().look(&mut going);
        let count = going.iter().map(Slice::length).sum();
        compressed.extend(going.iter().flat_map(|slice| slice.bytes().to_vec()));
        outlet.shared().took(count);
        let mut plain = vec![0; 1 << 20];
        let mut inflate = zlib_rs::Inflate::new(true, 31);
        let _ = inflate.decompress(compressed, &mut plain, zlib_rs::InflateFlush::SyncFlush);
        plain.truncate(inflate.total_out() as usize);
        plain
    }

    #[test]
    fn what_was_given_before_and_after_is_compressed_and_can_be_read_at_once() {
        for framing in [BodyFraming::Chunked, BodyFraming::Close, BodyFraming::Length(22)] {
            let (outlet, chores, done) = coded(framing, &[b"before ", b"and "], false);
            assert!(done);
            let mut bytes = Vec::new();
            assert_eq!((outlet.queued(), work(&chores)), (11, 1));
            assert_eq!(read(&outlet, &mut bytes), b"before and ");
            for piece in ["aft", "er ", ""] {
                outlet.send(Piece::new(piece.as_bytes())).unwrap();
            }
            assert_eq!(work(&chores), 1);
            assert_eq!(read(&outlet, &mut bytes), b"before and after ");
            outlet.send(Piece::new(b"end. And more that is too much"[..5].into())).unwrap();
            outlet.finish();
            assert_eq!(outlet.send(Piece::new(b"late")), Err(OutletError::Gone));
            assert!(!outlet.is_open());
            assert_eq!(work(&chores), 1);
            assert_eq!(read(&outlet, &mut bytes), b"before and after end. ");
            assert_eq!((outlet.queued(), work(&chores)), (0, 0));
            assert_eq!(bytes.get(bytes.len() - 4..), Some(&22_u32.to_le_bytes()[..]), "{framing:?}");
        }
    }

    #[test]
    fn a_body_that_was_complete_already_is_compressed() {
        for (framing, before) in
            [(BodyFraming::Chunked, &[&b"\n0\r\n\r\n"[..], b"a"][..]), (BodyFraming::Close, &[b"", b"a"])]
        {
            let (outlet, chores, done) = coded(framing, before, true);
            assert!(done && !outlet.is_open());
            assert_eq!(work(&chores), 1);
            assert_eq!(read(&outlet, &mut Vec::new()), before.concat());
            let look = outlet.shared().look(&mut VecDeque::new());
            assert_eq!(look.stage, Stage::Finishing);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_who_waits_is_told() {
        let (outlet, chores, _) = coded(BodyFraming::Chunked, &[], false);
        outlet.send(Piece::new(&[b'a'; 900])).unwrap();
        assert_eq!(outlet.send(Piece::new(&[b'a'; 200])), Err(OutletError::Full));
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        outlet.notify_below(100, Box::new(move || *locked(&count) += 1));
        assert_eq!(*locked(&told), 0);
        assert_eq!(work(&chores), 1);
        assert_eq!(*locked(&told), 1, "{}", outlet.queued());
        assert_eq!(outlet.wait_below(100, Duration::from_secs(1)), Ok(true));
    }

    #[test]
    fn a_body_that_is_cut_or_too_short_has_no_end() {
        let (outlet, chores, _) = coded(BodyFraming::Length(10), &[b"five."], false);
        outlet.finish();
        work(&chores);
        assert_eq!(outlet.shared().look(&mut VecDeque::new()).stage, Stage::Aborting);
        let (outlet, chores, _) = coded(BodyFraming::Chunked, &[b"five."], false);
        outlet.abort();
        work(&chores);
        assert_eq!(outlet.shared().look(&mut VecDeque::new()).stage, Stage::Aborting);
        let (_outlet, chores, done) = coded(BodyFraming::Length(10), &[b"five."], true);
        assert!(!done && work(&chores) == 0);
    }

    #[test]
    fn heartbeat_and_farewell_are_compressed_too() {
        let (outlet, chores, _) = coded(BodyFraming::Chunked, &[], false);
        outlet.heartbeat(Duration::from_secs(1), Piece::new(b"beat "));
        outlet.farewell(Piece::new(b"farewell"));
        let mut bytes = Vec::new();
        outlet.shared().beat();
        work(&chores);
        assert_eq!(read(&outlet, &mut bytes), b"beat ");
        outlet.shared().say_farewell();
        work(&chores);
        assert_eq!(read(&outlet, &mut bytes), b"beat farewell");
        assert_eq!(outlet.shared().look(&mut VecDeque::new()).stage, Stage::Finishing);
    }
}
