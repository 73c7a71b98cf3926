//! Bytes as people read them.

/// How many bytes are in a line.
const LINE: usize = 16;

/// Lines of at most 16 bytes, in hexadecimal and as text, the first of them at an offset in its packet.
pub(super) fn dump(bytes: &[u8], offset: usize) -> Vec<String> {
    let line = |(number, bytes): (usize, &[u8])| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = bytes.iter().map(|byte| printable(*byte)).collect();
        let digits = digits.join(" ");
        format!("{:04x}  {digits:<width$}  {text}", offset + number * LINE, width = LINE * 3 - 1)
    };
    bytes.chunks(LINE).enumerate().map(line).collect()
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_digits_and_text() {
        let lines = dump(b"GET /balance HTTP/1.1\r\n", 0x40);
        assert_eq!(
            lines,
            [
                "0040  47 45 54 20 2f 62 61 6c 61 6e 63 65 20 48 54 54  GET /balance HTT",
                "0050  50 2f 31 2e 31 0d 0a                             P/1.1..",
            ]
        );
    }
}
