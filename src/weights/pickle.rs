//! Checks what a pickle names before it is read. In: the pickle of a PyTorch file. Out: nothing, or what was found that is neither a
//! tensor nor a plain value. Called by [`super::pytorch_file`].
//!
//! # Design
//! A pickle is a program for a stack machine: it may name any function of Python and have it called. Our reader calls nothing, but
//! what it does not know it drops, and a file with a command in it would be imported as if it held none. So every instruction is
//! looked at beforehand. The alphabet is that part of protocol 2, the one of `torch.save`, which Python writes for plain values;
//! there a function is always named in full (`GLOBAL`), so that a list of names is enough and no stack is needed. Protocol 4 takes
//! names from the stack, where strings of the data lie too; it is refused rather than half understood.

/// Functions and classes that a state dict is made of. All others are refused.
const ALLOWED: [(&str, &[&str]); 3] = [
    ("collections", &["OrderedDict"]),
    ("torch._utils", &["_rebuild_tensor_v2", "_rebuild_parameter"]),
    (
        "torch",
        &[
            "DoubleStorage",
            "FloatStorage",
            "HalfStorage",
            "BFloat16Storage",
            "LongStorage",
            "IntStorage",
            "ShortStorage",
            "CharStorage",
            "ByteStorage",
            "BoolStorage",
        ],
    ),
];

/// First instruction of a pickle; its operand is the protocol.
const PROTO: u8 = 0x80;
/// Last instruction of a pickle.
const STOP: u8 = b'.';
/// Protocol that `torch.save` writes unless told otherwise.
const PROTOCOL: u8 = 2;
/// Characters of a name that an error repeats.
const MAX_NAME: usize = 80;

/// What follows the byte of an instruction.
enum Operand {
    /// So many bytes.
    Fixed(usize),
    /// A length of so many bytes, then as many bytes as it says.
    Counted(usize),
    /// A module and a name in it, a line each.
    Global,
}

/// Checks `pickle` from its first instruction to its last.
///
/// # Errors
/// What is wrong, as the end of a sentence about the file.
pub(super) fn check(pickle: &[u8]) -> Result<(), String> {
    let mut rest = pickle;
    if take(&mut rest, 2)? != [PROTO, PROTOCOL] {
        return Err(format!("is not pickled in protocol {PROTOCOL}, that of torch.save unless it is told another"));
    }
    loop {
        let at = pickle.len() - rest.len();
        let instruction = take(&mut rest, 1)?[0];
        let operand = operand(instruction).ok_or_else(|| {
            format!("has an instruction in its pickle that plain values do not need: {instruction:#04x} at {at}")
        })?;
        match operand {
            Operand::Fixed(n_bytes) => _ = take(&mut rest, n_bytes)?,
            Operand::Counted(n_bytes) => {
                let length = take(&mut rest, n_bytes)?.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
                take(&mut rest, length)?;
            }
            Operand::Global => check_global(take_line(&mut rest)?, take_line(&mut rest)?)?,
        }
        if instruction == STOP {
            return Ok(());
        }
    }
}

/// The operand of an instruction that Python writes for plain values in protocol 2; none for all others.
fn operand(instruction: u8) -> Option<Operand> {
    match instruction {
        // MARK STOP NONE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT APPEND APPENDS SETITEM SETITEMS TUPLE REDUCE BUILD BINPERSID
        b'(' | b'.' | b'N' | b')' | b']' | b'}' | b'a' | b'e' | b's' | b'u' | b't' | b'R' | b'b' | b'Q' => {
            Some(Operand::Fixed(0))
        }
        // TUPLE1 TUPLE2 TUPLE3 NEWTRUE NEWFALSE
        0x85..=0x89 => Some(Operand::Fixed(0)),
        // BININT1 BINPUT BINGET
        b'K' | b'q' | b'h' => Some(Operand::Fixed(1)),
        // BININT2
        b'M' => Some(Operand::Fixed(2)),
        // BININT LONG_BINPUT LONG_BINGET
        b'J' | b'r' | b'j' => Some(Operand::Fixed(4)),
        // BINFLOAT
        b'G' => Some(Operand::Fixed(8)),
        // LONG1
        0x8a => Some(Operand::Counted(1)),
        // BINUNICODE LONG4
        b'X' | 0x8b => Some(Operand::Counted(4)),
        b'c' => Some(Operand::Global),
        _ => None,
    }
}

fn check_global(module: &[u8], name: &[u8]) -> Result<(), String> {
    let is_listed =
        |(known, names): &(&str, &[&str])| known.as_bytes() == module && names.iter().any(|known| known.as_bytes() == name);
    if ALLOWED.iter().any(is_listed) {
        return Ok(());
    }
    // Escaped: the text is the file's, and goes to a terminal.
    let shown = |text: &[u8]| String::from_utf8_lossy(text).escape_debug().take(MAX_NAME).collect::<String>();
    Err(format!(
        "holds {}.{}, and only tensors and plain values are read; if you trust the file (this runs what it holds), save its state \
         dict alone, from the key that it has there: \
         python -c \"import torch; torch.save(torch.load('old.pth', weights_only=False)['state_dict'], 'new.pth')\"",
        shown(module),
        shown(name)
    ))
}

fn take<'a>(rest: &mut &'a [u8], n_bytes: usize) -> Result<&'a [u8], String> {
    let (taken, after) = rest.split_at_checked(n_bytes).ok_or("ends in the middle of its pickle")?;
    *rest = after;
    Ok(taken)
}

/// Up to the end of the line, without it.
fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = rest.iter().position(|byte| *byte == b'\n').ok_or("ends in the middle of its pickle")?;
    let line = take(rest, length)?;
    take(rest, 1)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn plain_values_pass() {
        // {'epoch': 3, 'lr': [0.5, None, True], 'seed': 2 ** 40}, as Python writes it.
        let pickle =
            b"\x80\x02}q\x00(X\x05\x00\x00\x00epochq\x01K\x03X\x02\x00\x00\x00lrq\x02]q\x03(G?\xe0\x00\x00\x00\x00\x00\x00\
            N\x88eX\x04\x00\x00\x00seedq\x04\x8a\x06\x00\x00\x00\x00\x00\x01u.";
        check(pickle).unwrap();
    }

    #[test]
    fn a_command_is_named_even_where_its_result_is_dropped() {
        // os.system('true'), discarded, before an empty dict.
        let error = check(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R0}.").unwrap_err();
        assert!(error.starts_with("holds posix.system, ") && error.contains("state_dict"), "{error}");
    }

    #[test]
    fn names_near_the_allowed_ones_are_refused_and_shown_without_control_characters() {
        for (module, name) in [("torch", "load"), ("torch.hub", "FloatStorage"), ("collections", "OrderedDict\r"), ("", "")] {
            let pickle = [b"\x80\x02c".as_slice(), module.as_bytes(), b"\n", name.as_bytes(), b"\n."].concat();
            assert!(check(&pickle).unwrap_err().starts_with("holds "), "{module}.{name}");
        }
        let error = check(b"\x80\x02c\x1b[31m\nred\xff\n.").unwrap_err();
        assert!(error.starts_with("holds \\u{1b}[31m.red\u{fffd}, "), "{error}");
    }

    #[test]
    fn other_protocols_and_instructions_are_refused() {
        // A name from the stack, in protocol 4 and under the number of protocol 2 (0x93).
        assert!(check(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.").unwrap_err().contains("protocol 2"));
        for instruction in [b'i', b'0', b'S', b'P', 0x81, 0x82, 0x93, 0x95, 0xff] {
            let error = check(&[PROTO, PROTOCOL, instruction, STOP]).unwrap_err();
            assert!(error.contains(&format!("{instruction:#04x} at 2")), "{error}");
        }
    }

    #[test]
    fn a_pickle_that_ends_early_is_refused() {
        let pickle = b"\x80\x02ccollections\nOrderedDict\n)RX\x02\x00\x00\x00ab\x8a\x01\x07s.";
        check(pickle).unwrap();
        for length in 0..pickle.len() {
            assert!(check(&pickle[..length]).is_err(), "{length}");
        }
        assert!(check(b"\x80\x02X\xff\xff\xff\xffab.").unwrap_err().contains("ends in the middle"));
    }
}
