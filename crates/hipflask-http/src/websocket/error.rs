//! What can be wrong with frames, one variant for each thing found.

use crate::error::errors;

errors! {
    /// Why a WebSocket connection is ended. "Need more bytes" is never an error.
    Error {
        /// The close code to send (RFC 6455 §7.4.1); the connection is ended after it.
        code,
        /// A sentence for the log and for the close frame. Holds no bytes of the message.
        reason,
    }
    /// RSV2 or RSV3, or RSV1 where no extension gives it a meaning: without permessage-deflate, in a control frame,
    /// in a continuation.
    Reserved = 1002 "a reserved bit is set";
    /// Opcodes 3 to 7 and 11 to 15.
    UnknownOpcode = 1002 "the opcode is not known";
    /// A client's frame without a mask.
    NotMasked = 1002 "a frame is not masked";
    /// A server's frame with a mask.
    Masked = 1002 "a frame is masked";
    /// A control frame without FIN.
    FragmentedControl = 1002 "a control frame is fragmented";
    /// A control frame with more than 125 bytes.
    LongControl = 1002 "a control frame is too long";
    /// A length below 126 in 16 bits, or below 65,536 in 64 bits.
    LongForm = 1002 "a length is not written in its shortest form";
    /// A length above 2⁶³ - 1.
    BadLength = 1002 "a length is out of range";
    /// A continuation frame where no message is open.
    NothingToContinue = 1002 "a continuation frame continues nothing";
    /// A text or binary frame while the message before it is open.
    Interleaved = 1002 "a message begins inside another";
    /// A close frame of one byte.
    ShortClose = 1002 "a close frame holds half a code";
    /// A close code that may not be sent: 0 to 999, 1004 to 1006, 1015, 1016 to 2999, 5000 and above.
    BadCloseCode = 1002 "the close code must not be sent";
    /// A close reason that is not UTF-8.
    BadCloseReason = 1007 "the close reason is not UTF-8";
    /// Text that is not UTF-8. Found at the first byte that cannot be right, not at the message's end.
    NotUtf8 = 1007 "a text message is not UTF-8";
    /// A compressed message that is no DEFLATE data.
    BadDeflate = 1007 "a compressed message cannot be decompressed";
    /// A message longer than [`Limits::message`](super::Limits::message), as sent or decompressed.
    LongMessage = 1009 "the message is too long";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_close_code_and_a_reason_that_fits_in_a_close_frame() {
        for error in Error::ALL {
            assert!([1002, 1007, 1009].contains(&error.code()), "{error:?}");
            assert!(error.reason().len() > 10 && error.reason().len() <= 123, "{error:?}");
            assert_eq!(error.to_string(), error.reason());
        }
    }
}
