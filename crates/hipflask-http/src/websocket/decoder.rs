//! Reading frames (RFC 6455 §5) and putting messages together.

use super::close::Close;
use super::deflate::Inflater;
use super::extension::Deflate;
use super::{BINARY, CLOSE, CONTINUATION, CONTROL, FIN, MASKED, PING, PONG, RSV, RSV1, TEXT};
use super::{Error, Limits, Role, mask};

/// What [`Decoder::next`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A ping, to be answered with a pong of the same bytes.
    Ping(Vec<u8>),
    /// A pong, asked for or not.
    Pong(Vec<u8>),
    /// The other end says that it sends no more. What follows is ignored.
    Close(Close),
}

/// The longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// How much compressed payload is unmasked at a time.
const PIECE: usize = 4096;

/// Reads one end's frames, pushed in pieces of any size.
///
/// Holds the message that is being received and nothing else: between messages it owns no memory beyond itself, unless
/// context takeover was agreed on.
pub struct Decoder {
    role: Role,
    state: State,
    limits: Limits,
    inflater: Option<Box<Inflater>>,
    /// A frame's head that has not arrived whole.
    head: [u8; LONGEST_HEAD],
    head_length: u8,
    frame: Frame,
    /// Whether a message's first frame has come and its last has not.
    open: bool,
    text: bool,
    compressed: bool,
    message: Vec<u8>,
    /// How many bytes of the message are known to be UTF-8.
    valid: usize,
    /// What the message's frames hold, before decompression.
    received: usize,
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Payload,
    Closed,
    Failed(Error),
}

/// The frame whose payload comes.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    opcode: u8,
    fin: bool,
    key: Option<[u8; 4]>,
    length: usize,
    /// How much of the payload has come.
    at: usize,
}

impl Decoder {
    /// A decoder for what the other end sends to an end in this role.
    #[must_use]
    pub fn new(role: Role, limits: Limits, deflate: Option<&Deflate>) -> Self {
        let takeover = |deflate: &Deflate| match role {
            Role::Server => deflate.client_takeover,
            Role::Client => deflate.server_takeover,
        };
        Decoder {
            role,
            state: State::Head,
            limits,
            inflater: deflate.map(|deflate| Box::new(Inflater::new(takeover(deflate)))),
            head: [0; LONGEST_HEAD],
            head_length: 0,
            frame: Frame::default(),
            open: false,
            text: false,
            compressed: false,
            message: Vec::new(),
            valid: 0,
            received: 0,
            control: Vec::new(),
        }
    }

    /// Reads up to the next event, and takes what it has read off the front of `input`. `None` means that all was read
    /// and more is needed.
    ///
    /// # Errors
    /// See [`Error`]: send its close code and end the connection. Every later call gives the same error.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Error> {
        let result = self.step(input);
        if let Err(error) = result {
            self.state = State::Failed(error);
            self.message = Vec::new();
        }
        result
    }

    /// Whether nothing has begun that has not ended: where a connection may break without a loss.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Closed)
            || (self.state == State::Head && self.head_length == 0 && !self.open)
    }

    /// Whether the other end's close frame has come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Error> {
        loop {
            match self.state {
                State::Failed(error) => return Err(error),
                State::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                State::Head => {
                    if !self.read_head(input)? {
                        return Ok(None);
                    }
                    self.state = State::Payload;
                }
                State::Payload => {
                    let wanted = self.frame.length - self.frame.at;
                    let (piece, rest) = input.split_at(wanted.min(input.len()));
                    *input = rest;
                    let last = piece.len() == wanted;
                    let event = if self.frame.opcode & 8 == 0 {
                        self.data(piece, last)?
                    } else {
                        self.control(piece, last)?
                    };
                    if !last {
                        return Ok(None);
                    }
                    if self.state == State::Payload {
                        self.state = State::Head;
                    }
                    if event.is_some() {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Reads a frame's head. False: more bytes are needed.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        if self.head_length == 0 {
            // The rule: the head is there as a whole.
            if let Some((frame, taken)) = self.parse_head(input)? {
                *input = input.get(taken..).unwrap_or_default();
                self.frame = frame;
                self.begin()?;
                return Ok(true);
            }
        }
        while let Some((&byte, rest)) = input.split_first() {
            let Some(place) = self.head.get_mut(usize::from(self.head_length)) else { break };
            *place = byte;
            *input = rest;
            self.head_length += 1;
            let head = self.head;
            let known = head.get(..usize::from(self.head_length)).unwrap_or_default();
            if let Some((frame, _)) = self.parse_head(known)? {
                self.head_length = 0;
                self.frame = frame;
                self.begin()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads a head from the beginning of `bytes`; `None` if it is not complete. What is wrong is found with the byte
    /// that makes it wrong.
    fn parse_head(&self, bytes: &[u8]) -> Result<Option<(Frame, usize)>, Error> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let fin = first & FIN != 0;
        let opcode = first & 0x0f;
        let rsv = first & RSV;
        let starts = matches!(opcode, TEXT | BINARY);
        if rsv & !RSV1 != 0 || (rsv != 0 && !(starts && self.inflater.is_some())) {
            return Err(Error::Reserved);
        }
        match opcode {
            CONTINUATION if !self.open => return Err(Error::NothingToContinue),
            TEXT | BINARY if self.open => return Err(Error::Interleaved),
            CONTINUATION | TEXT | BINARY => {}
            CLOSE | PING | PONG if !fin => return Err(Error::FragmentedControl),
            CLOSE | PING | PONG => {}
            _ => return Err(Error::UnknownOpcode),
        }
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        let masked = second & MASKED != 0;
        match self.role {
            Role::Server if !masked => return Err(Error::NotMasked),
            Role::Client if masked => return Err(Error::Masked),
            _ => {}
        }
        let short = second & !MASKED;
        if opcode & 8 != 0 && usize::from(short) > CONTROL {
            return Err(Error::LongControl);
        }
        let (length, rest, extended) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*length));
                if length < 126 {
                    return Err(Error::LongForm);
                }
                (length, rest, 2)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                let length = u64::from_be_bytes(*length);
                if length >> 63 != 0 {
                    return Err(Error::BadLength);
                }
                if length <= u64::from(u16::MAX) {
                    return Err(Error::LongForm);
                }
                (length, rest, 8)
            }
            short => (u64::from(short), rest, 0),
        };
        let Ok(length) = usize::try_from(length) else { return Err(Error::LongMessage) };
        let key = match rest.split_first_chunk::<4>() {
            _ if !masked => None,
            Some((key, _)) => Some(*key),
            None => return Ok(None),
        };
        let taken = 2 + extended + if masked { 4 } else { 0 };
        // The bit of a first frame is carried by the opcode; `begin` takes it off.
        let frame = Frame { opcode: opcode | (first & RSV1), fin, key, length, at: 0 };
        Ok(Some((frame, taken)))
    }

    /// Begins a frame whose head is known.
    fn begin(&mut self) -> Result<(), Error> {
        let compressed = self.frame.opcode & RSV1 != 0;
        self.frame.opcode &= !RSV1;
        let opcode = self.frame.opcode;
        if opcode & 8 != 0 {
            return Ok(());
        }
        if opcode != CONTINUATION {
            self.open = true;
            self.text = opcode == TEXT;
            self.compressed = compressed;
            self.received = 0;
            self.valid = 0;
        }
        // What does not compress grows a little.
        let most = match self.compressed {
            true => self.limits.message.saturating_add(self.limits.message / 1024 + 64),
            false => self.limits.message,
        };
        self.received = self.received.saturating_add(self.frame.length);
        if self.received > most {
            return Err(Error::LongMessage);
        }
        Ok(())
    }

    /// Takes a piece of a data frame's payload.
    fn data(&mut self, piece: &[u8], last: bool) -> Result<Option<Event>, Error> {
        let whole = last && self.frame.fin;
        if self.compressed {
            self.inflate(piece, whole)?;
        } else {
            let from = self.message.len();
            if whole && from == 0 {
                self.message.reserve_exact(piece.len());
            }
            self.message.extend_from_slice(piece);
            self.unmask_message(from);
        }
        self.frame.at += piece.len();
        if !whole {
            if self.text {
                self.check_text()?;
            }
            return Ok(None);
        }
        self.open = false;
        let message = std::mem::take(&mut self.message);
        if self.text {
            String::from_utf8(message).map(|text| Some(Event::Text(text))).map_err(|_| Error::NotUtf8)
        } else {
            Ok(Some(Event::Binary(message)))
        }
    }

    fn unmask_message(&mut self, from: usize) {
        if let (Some(key), Some(fresh)) = (self.frame.key, self.message.get_mut(from..)) {
            mask::apply(key, self.frame.at, fresh);
        }
    }

    fn inflate(&mut self, piece: &[u8], whole: bool) -> Result<(), Error> {
        let mut at = self.frame.at;
        let mut plain = [0; PIECE];
        for part in piece.chunks(PIECE) {
            let Some(inflater) = self.inflater.as_mut() else { return Err(Error::Reserved) };
            let place = plain.get_mut(..part.len()).unwrap_or_default();
            place.copy_from_slice(part);
            if let Some(key) = self.frame.key {
                mask::apply(key, at, place);
            }
            at += part.len();
            let result = inflater.decompress(place, &mut self.message, self.limits.message);
            self.text_first(result)?;
        }
        if whole {
            let Some(inflater) = self.inflater.as_mut() else { return Err(Error::Reserved) };
            let result = inflater.finish(&mut self.message, self.limits.message);
            self.text_first(result)?;
        }
        Ok(())
    }

    /// Text that is no UTF-8 before the place of an error is the error, as if it had arrived alone.
    fn text_first(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() && self.text {
            self.check_text()?;
        }
        result
    }

    /// Checks as much text as has come; a character that is cut off is left for later.
    fn check_text(&mut self) -> Result<(), Error> {
        let fresh = self.message.get(self.valid..).unwrap_or_default();
        match std::str::from_utf8(fresh) {
            Ok(_) => self.valid = self.message.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Error::NotUtf8),
        }
        Ok(())
    }

    /// Takes a piece of a control frame's payload.
    fn control(&mut self, piece: &[u8], last: bool) -> Result<Option<Event>, Error> {
        let from = self.control.len();
        self.control.extend_from_slice(piece);
        if let (Some(key), Some(fresh)) = (self.frame.key, self.control.get_mut(from..)) {
            mask::apply(key, self.frame.at, fresh);
        }
        self.frame.at += piece.len();
        if !last {
            return Ok(None);
        }
        let body = std::mem::take(&mut self.control);
        Ok(Some(match self.frame.opcode {
            PING => Event::Ping(body),
            PONG => Event::Pong(body),
            _ => {
                let close = Close::parse(&body)?;
                self.state = State::Closed;
                self.message = Vec::new();
                Event::Close(close)
            }
        }))
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("role", &self.role)
            .field("state", &self.state)
            .field("open", &self.open)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeflatePolicy, Encoder, Kind};
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn agreed() -> Deflate {
        let policy = DeflatePolicy::default();
        Deflate {
            server_takeover: true,
            client_takeover: true,
            server_window_bits: 15,
            client_window_bits: 15,
            level: policy.level,
            threshold: 0,
        }
    }

    /// A client's frame: its first byte and its payload, masked, with the shortest length.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&KEY);
        bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn read_with(mut decoder: Decoder, bytes: &[u8], size: usize) -> (Vec<Event>, Result<(), Error>) {
        let mut events = Vec::new();
        for mut piece in bytes.chunks(size) {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next(&mut &b"\x81\x80abcd"[..]), Err(error));
                        return (events, Err(error));
                    }
                }
            }
            assert!(piece.is_empty());
        }
        (events, Ok(()))
    }

    /// Reads as a server, whole and in pieces.
    fn read(bytes: &[u8], deflate: Option<&Deflate>) -> (Vec<Event>, Result<(), Error>) {
        let limits = Limits { message: 70_000 };
        let whole = read_with(Decoder::new(Role::Server, limits, deflate), bytes, usize::MAX);
        for size in [1, 3] {
            assert_eq!(whole, read_with(Decoder::new(Role::Server, limits, deflate), bytes, size));
        }
        whole
    }

    #[test]
    fn the_examples_of_rfc_6455_are_read() {
        let client = |bytes: &[u8], deflate: Option<&Deflate>| {
            read_with(Decoder::new(Role::Client, Limits::default(), deflate), bytes, usize::MAX)
        };
        let hello = Event::Text("Hello".into());
        for (bytes, event) in [
            (&b"\x81\x05Hello"[..], &hello),
            (b"\x01\x03Hel\x80\x02lo", &hello),
            (b"\x89\x05Hello", &Event::Ping(b"Hello".to_vec())),
            (b"\x8a\x05Hello", &Event::Pong(b"Hello".to_vec())),
            (b"\x88\x02\x03\xe8", &Event::Close(Close { code: Some(1000), reason: String::new() })),
            (b"\x88\x00", &Event::Close(Close { code: None, reason: String::new() })),
        ] {
            assert_eq!(client(bytes, None), (vec![event.clone()], Ok(())));
        }
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(read(masked, None), (vec![hello.clone()], Ok(())));
        for length in [256, 65_536] {
            let mut bytes = Vec::new();
            Encoder::server(None).message(Kind::Binary, &vec![7; length], &mut bytes);
            assert_eq!(bytes.len() - length, if length == 256 { 4 } else { 10 });
            assert_eq!(client(&bytes, None), (vec![Event::Binary(vec![7; length])], Ok(())));
        }
        // RFC 7692 §7.2.3: in one frame and in two, then with the window of the message before.
        let mut bytes = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec();
        bytes.extend_from_slice(b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00");
        bytes.extend_from_slice(b"\xc1\x05\xf2\x00\x11\x00\x00");
        assert_eq!(client(&bytes, Some(&agreed())), (vec![hello; 3], Ok(())));
    }

    #[test]
    fn control_frames_come_between_the_frames_of_a_message() {
        let bytes =
            [frame(1, b"a"), frame(0x89, b"p"), frame(0, b""), frame(0x8a, b""), frame(0x80, b"b")].concat();
        let events = vec![Event::Ping(b"p".to_vec()), Event::Pong(Vec::new()), Event::Text("ab".into())];
        assert_eq!(read(&bytes, None), (events, Ok(())));
    }

    #[test]
    fn what_follows_a_close_is_ignored() {
        let bytes = [frame(1, b"a"), frame(0x88, b"\x0f\xa0bye"), vec![0xff; 20]].concat();
        let close = Close { code: Some(4000), reason: "bye".into() };
        assert_eq!(read(&bytes, None), (vec![Event::Close(close)], Ok(())));
    }

    #[test]
    fn bad_frames_are_refused_with_the_code_that_the_rfc_prescribes() {
        use Error::*;
        let long = vec![0; 126];
        let truncated = frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x05, 0xff, 0xff]);
        for (bytes, error) in [
            (vec![0xc1], Reserved),
            (vec![0xa1], Reserved),
            (vec![0x91], Reserved),
            (vec![0xc9], Reserved),
            (vec![0x83], UnknownOpcode),
            (vec![0x87], UnknownOpcode),
            (vec![0x8b], UnknownOpcode),
            (vec![0x8f], UnknownOpcode),
            (vec![0x81, 0x00], NotMasked),
            (vec![0x81, 0x05], NotMasked),
            (vec![0x89, 0x05], NotMasked),
            (vec![0x09], FragmentedControl),
            (vec![0x08], FragmentedControl),
            (frame(0x89, &long), LongControl),
            (frame(0x88, &long), LongControl),
            (vec![0x89, 0xff], LongControl),
            (vec![0x82, 0x80 | 126, 0, 125], LongForm),
            (vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], LongForm),
            (vec![0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0], BadLength),
            (vec![0x80], NothingToContinue),
            (vec![0x00], NothingToContinue),
            ([frame(0x01, b"a"), vec![0x81]].concat(), Interleaved),
            ([frame(0x02, b"a"), vec![0x02]].concat(), Interleaved),
            (frame(0x88, b"\x03"), ShortClose),
            (frame(0x88, b"\x03\xed"), BadCloseCode),
            (frame(0x88, b"\x03\xe8\xff"), BadCloseReason),
            (frame(0x81, b"\xc3"), NotUtf8),
            (frame(0x01, b"a\xff"), NotUtf8),
            (frame(0x81, b"\xed\xa0\x80"), NotUtf8),
            (frame(0x81, b"\xf4\x90"), NotUtf8),
            (frame(0x81, b"\xc0\x80"), NotUtf8),
            (vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0x11, 0x71, 0, 0, 0, 0], LongMessage),
            (vec![0x82, 0x80 | 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], LongMessage),
            ([frame(0x02, &vec![0; 70_000]), frame(0, b"a")].concat(), LongMessage),
        ] {
            assert_eq!(read(&bytes, None), (Vec::new(), Err(error)), "{bytes:?}");
        }
        let deflate = agreed();
        for (bytes, error) in [
            (vec![0xe1], Reserved),
            (vec![0xc9], Reserved),
            (vec![0xc0], Reserved),
            ([frame(0x41, b""), vec![0xc0]].concat(), Reserved),
            (frame(0xc1, &[0xff; 5]), BadDeflate),
            (truncated, BadDeflate),
        ] {
            assert_eq!(read(&bytes, Some(&deflate)), (Vec::new(), Err(error)), "{bytes:?}");
        }
        let unmasked = read_with(Decoder::new(Role::Client, Limits::default(), None), &[0x81, 0x80], 1);
        assert_eq!(unmasked, (Vec::new(), Err(Masked)));
    }

    #[test]
    fn invalid_text_is_refused_before_the_frame_is_complete() {
        let whole = frame(0x81, b"\xce\xba\xff and much more text that never has to come");
        let mut decoder = Decoder::new(Role::Server, Limits::default(), None);
        let mut head = &whole[..8];
        assert_eq!(decoder.next(&mut head), Ok(None));
        let mut byte = &whole[8..9];
        assert_eq!(decoder.next(&mut byte), Err(Error::NotUtf8));
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let mut bytes = Vec::new();
        Encoder::client(Some(&agreed()), 1).message(Kind::Binary, &vec![0; 5_000_000], &mut bytes);
        assert!(bytes.len() < 10_000);
        assert_eq!(read(&bytes, Some(&agreed())), (Vec::new(), Err(Error::LongMessage)));
    }

    #[test]
    fn an_announced_length_costs_no_memory() {
        let mut decoder = Decoder::new(Role::Server, Limits { message: 1 << 40 }, None);
        let mut input = &[0x82, 0xff, 0, 0, 0, 0x80, 0, 0, 0, 0, 1, 2, 3, 4, 5][..];
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert!(decoder.message.capacity() < 100);
        assert!(!decoder.is_between_messages());
    }

    #[test]
    fn a_quiet_connection_holds_little() {
        assert!(size_of::<Decoder>() + size_of::<Encoder>() <= 260);
        let mut decoder = Decoder::new(Role::Server, Limits::default(), None);
        assert!(decoder.is_between_messages());
        let bytes = frame(0x81, b"Hello");
        assert!(matches!(decoder.next(&mut &bytes[..]), Ok(Some(Event::Text(_)))));
        assert_eq!((decoder.message.capacity(), decoder.control.capacity()), (0, 0));
        assert!(decoder.is_between_messages());
    }
}
