//! Compressed files that are kept in memory, so that each is compressed once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::locked;
use hipflask_http::Coding;

/// Files that are remembered, at most, also as not worth it: a name costs some 100 bytes.
const MOST: usize = 4096;

/// What tells one state of one file from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: (i64, i64),
    pub(crate) changed: (i64, i64),
    pub(crate) coding: Coding,
}

/// The files, the oldest of which go when there is no room.
#[derive(Debug)]
pub(crate) struct Kept {
    room: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// In the order in which they came.
    order: VecDeque<Key>,
    bytes: u64,
}

#[derive(Debug)]
enum Entry {
    /// Somebody is at it.
    Claimed,
    Useless,
    Kept(Arc<[u8]>),
}

/// What is known of a file.
pub(crate) enum Looked {
    /// It is to be sent as it is: it does not become smaller, or is being compressed for somebody else.
    Useless,
    /// Here it is.
    Kept(Arc<[u8]>),
    /// Nothing: whoever asks compresses it.
    Missing(Claim),
}

/// The duty to compress a file. Dropped without a result it goes to the next one who asks.
pub(crate) struct Claim {
    kept: Arc<Kept>,
    key: Option<Key>,
}

impl Kept {
    pub(crate) fn new(room: u64) -> Arc<Kept> {
        Arc::new(Kept { room, state: Mutex::default() })
    }

    /// Looks a file up. Of many who ask for one at the same time only the first gets to compress it.
    pub(crate) fn look(self: &Arc<Self>, key: Key) -> Looked {
        let mut state = locked(&self.state);
        match state.entries.get(&key) {
            Some(Entry::Kept(bytes)) => return Looked::Kept(Arc::clone(bytes)),
            Some(Entry::Claimed | Entry::Useless) => return Looked::Useless,
            None => {}
        }
        state.insert(key.clone(), Entry::Claimed);
        state.shrink(self.room);
        drop(state);
        Looked::Missing(Claim { kept: Arc::clone(self), key: Some(key) })
    }
}

impl State {
    fn insert(&mut self, key: Key, entry: Entry) {
        if let Entry::Kept(bytes) = &entry {
            self.bytes += bytes.len() as u64;
        }
        match self.entries.insert(key.clone(), entry) {
            None => self.order.push_back(key),
            Some(Entry::Kept(bytes)) => self.bytes -= bytes.len() as u64,
            Some(Entry::Claimed | Entry::Useless) => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(Entry::Kept(bytes)) = self.entries.remove(key) {
            self.bytes -= bytes.len() as u64;
        }
    }

    fn shrink(&mut self, room: u64) {
        while (self.bytes > room || self.order.len() > MOST)
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(&oldest);
        }
    }
}

impl Claim {
    /// Keeps what came of it; `None` if it was not worth it.
    pub(crate) fn settle(mut self, bytes: Option<Arc<[u8]>>) {
        let Some(key) = self.key.take() else { return };
        let mut state = locked(&self.kept.state);
        match bytes {
            // Else it would push all others out and not stay itself.
            Some(bytes) if bytes.len() as u64 > self.kept.room => {
                state.remove(&key);
                state.order.retain(|other| *other != key);
            }
            Some(bytes) => state.insert(key, Entry::Kept(bytes)),
            None => state.insert(key, Entry::Useless),
        }
        state.shrink(self.kept.room);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let mut state = locked(&self.kept.state);
            state.remove(&key);
            state.order.retain(|other| *other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64) -> Key {
        let coding = Coding::Gzip;
        Key { device: 1, inode, size: 5, modified: (1, 0), changed: (1, 0), coding }
    }

    fn put(kept: &Arc<Kept>, inode: u64, length: usize) {
        let Looked::Missing(claim) = kept.look(key(inode)) else { panic!("{inode} is known") };
        claim.settle(Some(vec![0; length].into()));
    }

    fn has(kept: &Arc<Kept>, inode: u64) -> bool {
        matches!(kept.look(key(inode)), Looked::Kept(_))
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let kept = Kept::new(100);
        for inode in 1..=3 {
            put(&kept, inode, 40);
        }
        assert_eq!([1, 2, 3].map(|inode| has(&kept, inode)), [false, true, true]);
        put(&kept, 4, 101);
        assert_eq!([2, 3, 4].map(|inode| has(&kept, inode)), [true, true, false]);
        assert!(kept.state.lock().unwrap().bytes <= 100);
    }

    #[test]
    fn one_compresses_and_the_others_do_not_wait() {
        let kept = Kept::new(100);
        let Looked::Missing(claim) = kept.look(key(1)) else { panic!("it is known") };
        assert!(matches!(kept.look(key(1)), Looked::Useless));
        drop(claim);
        let Looked::Missing(claim) = kept.look(key(1)) else { panic!("the claim is not given back") };
        claim.settle(None);
        assert!(matches!(kept.look(key(1)), Looked::Useless));
        let state = kept.state.lock().unwrap();
        assert_eq!((state.entries.len(), state.order.len(), state.bytes), (1, 1, 0));
    }

    #[test]
    fn names_are_bounded_too() {
        let kept = Kept::new(100);
        for inode in 0..MOST as u64 + 10 {
            if let Looked::Missing(claim) = kept.look(key(inode)) {
                claim.settle(None);
            }
        }
        assert!(kept.state.lock().unwrap().entries.len() <= MOST);
    }
}
