//! JSON text as a stream of tokens (RFC 8259), the one reader beneath the requests of receiver and sender.
//!
//! Signatures are made over text, so a token keeps the text it has in the input: numbers are not
//! rounded and strings are not unescaped. The reader keeps its own stack of open containers, so that
//! no input can overflow the thread's, and never reads a byte twice. It does not compare keys.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use thiserror::Error;

/// Why a text was refused by [`Tokens`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// The text breaks the grammar of RFC 8259.
    #[error("not JSON: {fault} at {at}")]
    Syntax {
        /// The rule that is broken.
        fault: SyntaxFault,
        /// Where.
        at: Position,
    },
    /// Lists and objects lie within each other too deep.
    #[error("lists and objects are nested deeper than {depth_max} levels at {at}")]
    TooDeep {
        /// The limit.
        depth_max: usize,
        /// Where the first level beyond the limit begins.
        at: Position,
    },
}

impl JsonError {
    /// Names the line of a body in place of the only one that the reader saw.
    pub fn in_line(self, line: usize) -> Self {
        match self {
            Self::Syntax { fault, at } => Self::Syntax { fault, at: Position { line, ..at } },
            Self::TooDeep { depth_max, at } => Self::TooDeep { depth_max, at: Position { line, ..at } },
        }
    }
}

/// The rules of the grammar that a text can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SyntaxFault {
    /// The text stops before its value is complete.
    #[error("the text ends too early")]
    UnexpectedEnd,
    /// No value begins here.
    #[error("expected a value")]
    ExpectedValue,
    /// Python's and JavaScript's `NaN` and `Infinity`, which JSON does not have.
    #[error("NaN and Infinity are no JSON numbers (send null or a string instead)")]
    NotFinite,
    /// No key begins here.
    #[error("expected a key in double quotes")]
    ExpectedKey,
    /// A key without its colon.
    #[error("expected `:` after the key")]
    ExpectedColon,
    /// Neither the next element nor the end of a list or an object.
    #[error("expected `,` or the closing bracket")]
    ExpectedComma,
    /// Leading zeros, or no digit where one is due.
    #[error("malformed number")]
    MalformedNumber,
    /// A character below U+0020 inside a string.
    #[error("control character in a string (write it as an escape)")]
    ControlCharacter,
    /// A backslash with something else than JSON's nine escapes after it.
    #[error("unknown escape in a string")]
    UnknownEscape,
    /// More than one value.
    #[error("more text after the value")]
    TrailingText,
}

/// A place in a text for people: both count from 1, columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// A token and the byte offset at which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// The offset.
    pub start: usize,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a [`Token`] is. Commas and colons have no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `{`
    ObjectStart,
    /// `}`
    ObjectEnd,
    /// `[`
    ArrayStart,
    /// `]`
    ArrayEnd,
    /// A key, as it stands between its quotes.
    Key(&'a str),
    /// A string, as it stands between its quotes.
    Text(&'a str),
    /// A number.
    Number(&'a str),
    /// `true`, `false` or `null`.
    Literal(&'static str),
}

impl Kind<'_> {
    /// Returns what people call the value that begins so.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ObjectStart | Self::ObjectEnd => "an object",
            Self::ArrayStart | Self::ArrayEnd => "a list",
            Self::Key(_) | Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Literal(word) => word,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
    Nothing,
}

/// Reads the tokens of one JSON value and refuses everything else.
#[derive(Debug)]
pub struct Tokens<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Container>,
    expected: Expected,
    depth_max: usize,
}

impl<'a> Tokens<'a> {
    /// Begins at the start of `text`; a scalar has depth 0, `[]` has depth 1.
    pub fn new(text: &'a str, depth_max: usize) -> Self {
        Self { text, at: 0, open: Vec::new(), expected: Expected::Value, depth_max }
    }

    /// Returns the next token, or `None` after a complete value with nothing behind it.
    ///
    /// # Errors
    ///
    /// [`JsonError`]; what a call after an error returns is of no use.
    pub fn next_token(&mut self) -> Result<Option<Token<'a>>, JsonError> {
        self.skip_white_space();
        if self.expected == Expected::Nothing {
            return match self.peek() {
                None => Ok(None),
                Some(_) => Err(self.fault(SyntaxFault::TrailingText)),
            };
        }
        if self.expected == Expected::CommaOrEnd && self.peek() == Some(b',') {
            self.at += 1;
            self.skip_white_space();
            self.expected = match self.open.last() {
                Some(Container::Object) => Expected::Key,
                _ => Expected::Value,
            };
        }
        let start = self.at;
        let kind = match (self.expected, self.peek()) {
            (_, None) => return Err(self.fault(SyntaxFault::UnexpectedEnd)),
            (Expected::CommaOrEnd | Expected::ValueOrEnd | Expected::KeyOrEnd, Some(byte))
                if self.closes(byte) =>
            {
                self.close()
            }
            (Expected::CommaOrEnd | Expected::Nothing, _) => {
                return Err(self.fault(SyntaxFault::ExpectedComma));
            }
            (Expected::Key | Expected::KeyOrEnd, Some(b'"')) => self.key()?,
            (Expected::Key | Expected::KeyOrEnd, _) => {
                return Err(self.fault(SyntaxFault::ExpectedKey));
            }
            (Expected::Value | Expected::ValueOrEnd, Some(byte)) => self.value(byte)?,
        };
        Ok(Some(Token { start, kind }))
    }

    /// Reads on to the end of the value that `first` begins and returns its text, verbatim.
    ///
    /// # Errors
    ///
    /// [`JsonError`], where the rest of the value is at fault.
    pub fn rest_of_value(&mut self, first: Token<'a>) -> Result<&'a str, JsonError> {
        if matches!(first.kind, Kind::ObjectStart | Kind::ArrayStart) {
            let depth = self.open.len();
            while self.open.len() >= depth {
                self.next_token()?;
            }
        }
        Ok(&self.text[first.start..self.at])
    }

    /// Returns the byte offset behind the latest token; behind a key, that of its colon's end.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Returns line and column of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let is_first_byte = |byte: &&u8| **byte & 0xC0 != 0x80;
        Position {
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            column: before[line_start..].iter().filter(is_first_byte).count() + 1,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn fault(&self, fault: SyntaxFault) -> JsonError {
        let at = self.position(self.at);
        JsonError::Syntax { fault, at }
    }

    fn closes(&self, byte: u8) -> bool {
        match self.open.last() {
            Some(Container::Array) => byte == b']',
            Some(Container::Object) => byte == b'}',
            None => false,
        }
    }

    fn close(&mut self) -> Kind<'a> {
        self.at += 1;
        let closed = self.open.pop();
        self.value_ended();
        match closed {
            Some(Container::Object) => Kind::ObjectEnd,
            _ => Kind::ArrayEnd,
        }
    }

    fn value_ended(&mut self) {
        self.expected = match self.open.is_empty() {
            true => Expected::Nothing,
            false => Expected::CommaOrEnd,
        };
    }

    fn key(&mut self) -> Result<Kind<'a>, JsonError> {
        let key = self.string()?;
        self.skip_white_space();
        match self.peek() {
            Some(b':') => self.at += 1,
            None => return Err(self.fault(SyntaxFault::UnexpectedEnd)),
            Some(_) => return Err(self.fault(SyntaxFault::ExpectedColon)),
        }
        self.expected = Expected::Value;
        Ok(Kind::Key(key))
    }

    fn value(&mut self, first: u8) -> Result<Kind<'a>, JsonError> {
        let kind = match first {
            b'{' => return self.open(Container::Object),
            b'[' => return self.open(Container::Array),
            b'"' => Kind::Text(self.string()?),
            b'-' | b'0'..=b'9' => Kind::Number(self.number()?),
            _ => Kind::Literal(self.literal()?),
        };
        self.value_ended();
        Ok(kind)
    }

    fn open(&mut self, container: Container) -> Result<Kind<'a>, JsonError> {
        if self.open.len() >= self.depth_max {
            return Err(JsonError::TooDeep { depth_max: self.depth_max, at: self.position(self.at) });
        }
        self.at += 1;
        self.open.push(container);
        Ok(match container {
            Container::Object => {
                self.expected = Expected::KeyOrEnd;
                Kind::ObjectStart
            }
            Container::Array => {
                self.expected = Expected::ValueOrEnd;
                Kind::ArrayStart
            }
        })
    }

    fn literal(&mut self) -> Result<&'static str, JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        for word in ["true", "false", "null"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(word);
            }
        }
        Err(self.fault(match is_not_finite(rest) {
            true => SyntaxFault::NotFinite,
            false => SyntaxFault::ExpectedValue,
        }))
    }

    fn string(&mut self) -> Result<&'a str, JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            self.at += count_plain(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                None => return Err(self.fault(SyntaxFault::UnexpectedEnd)),
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.fault(SyntaxFault::ControlCharacter)),
            }
        }
        let content = &self.text[start..self.at];
        self.at += 1;
        Ok(content)
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += match self.text.as_bytes()[self.at..] {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [_, b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.fault(SyntaxFault::UnknownEscape)),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if is_not_finite(&self.text.as_bytes()[self.at..]) {
            return Err(self.fault(SyntaxFault::NotFinite));
        }
        let first_digit = self.at;
        self.digits()?;
        if self.at > first_digit + 1 && self.text.as_bytes()[first_digit] == b'0' {
            self.at = first_digit;
            return Err(self.fault(SyntaxFault::MalformedNumber));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        match self.at > start {
            true => Ok(()),
            false => Err(self.fault(SyntaxFault::MalformedNumber)),
        }
    }
}

/// Returns how many bytes stand before the first quote, backslash or control character.
fn count_plain(bytes: &[u8]) -> usize {
    let is_special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    // Without a branch a byte, so that the compiler takes a whole chunk at a time.
    let holds_special = |chunk: &&[u8; 32]| chunk.iter().fold(false, |found, byte| found | is_special(*byte));
    let (chunks, _) = bytes.as_chunks::<32>();
    let plain = chunks.iter().take_while(|chunk| !holds_special(chunk)).count() * 32;
    let rest = &bytes[plain..];
    plain + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

fn is_not_finite(rest: &[u8]) -> bool {
    rest.starts_with(b"NaN") || rest.starts_with(b"Infinity")
}

/// Returns the UTF-16 code units that a string's content, as [`Kind::Text`] holds it, stands for.
///
/// Units rather than characters, because JSON can escape half a surrogate pair.
pub fn code_units(content: &str) -> impl Iterator<Item = u16> {
    let mut units = content.encode_utf16();
    std::iter::from_fn(move || {
        let unit = units.next()?;
        if unit != u16::from(b'\\') {
            return Some(unit);
        }
        Some(match char::from_u32(units.next()?.into())? {
            'b' => 0x08,
            't' => 0x09,
            'n' => 0x0A,
            'f' => 0x0C,
            'r' => 0x0D,
            'u' => {
                let digits: String = char::decode_utf16(units.by_ref().take(4)).flatten().collect();
                u16::from_str_radix(&digits, 16).ok()?
            }
            // `"`, `\` and `/` stand for themselves.
            itself => u16::try_from(u32::from(itself)).ok()?,
        })
    })
}

/// Returns the characters that a string's content stands for, or `None` where half a surrogate
/// pair makes it no text.
pub fn unescape(content: &str) -> Option<Cow<'_, str>> {
    let Some((plain, _)) = content.split_once('\\') else { return Some(Cow::Borrowed(content)) };
    let mut text = String::with_capacity(content.len());
    text.push_str(plain);
    let mut rest = &content[plain.len()..];
    while !rest.is_empty() {
        // A run of escapes, since half a surrogate pair only makes sense with the next.
        let escapes = count_escapes(rest);
        for char in char::decode_utf16(code_units(&rest[..escapes])) {
            text.push(char.ok()?);
        }
        let plain = &rest[escapes..];
        let plain = &plain[..plain.find('\\').unwrap_or(plain.len())];
        text.push_str(plain);
        rest = &rest[escapes + plain.len()..];
    }
    Some(Cow::Owned(text))
}

/// Returns the length of the escapes that a string's content begins with.
fn count_escapes(content: &str) -> usize {
    let bytes = content.as_bytes();
    let mut length = 0;
    while bytes.get(length) == Some(&b'\\') {
        let escape = if bytes.get(length + 1) == Some(&b'u') { 6 } else { 2 };
        length = (length + escape).min(bytes.len());
    }
    length
}

/// Returns a string's content in ASCII and in one spelling, Python's, so that equal strings have equal spellings.
pub fn ascii_spelling(content: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\';
    if content.bytes().all(is_plain) {
        return Cow::Borrowed(content);
    }
    let mut escaped = String::with_capacity(content.len() * 2);
    for unit in code_units(content) {
        match unit {
            0x08 => escaped.push_str("\\b"),
            0x09 => escaped.push_str("\\t"),
            0x0A => escaped.push_str("\\n"),
            0x0C => escaped.push_str("\\f"),
            0x0D => escaped.push_str("\\r"),
            0x22 => escaped.push_str("\\\""),
            0x5C => escaped.push_str("\\\\"),
            // DEL is an escape in CPython, though JSON does not ask for it.
            0x20..0x7F => escaped.extend(char::from_u32(unit.into())),
            _ => write!(escaped, "\\u{unit:04x}").expect("a String takes any text"),
        }
    }
    Cow::Owned(escaped)
}

/// Shortens a text that a stranger chose, for a message.
pub fn shorten(text: &str) -> String {
    const LENGTH_MAX: usize = 40;
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Result<Vec<Kind<'_>>, JsonError> {
        let mut tokens = Tokens::new(text, 3);
        let mut kinds = Vec::new();
        while let Some(token) = tokens.next_token()? {
            kinds.push(token.kind);
        }
        Ok(kinds)
    }

    fn fault(text: &str) -> (SyntaxFault, usize, usize) {
        match kinds(text) {
            Err(JsonError::Syntax { fault, at }) => (fault, at.line, at.column),
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn keeps_the_text_of_each_token() {
        assert_eq!(
            kinds(" {\"a\\u0062\" : [1.50, \"x\\n\",true] , \"\":{}}\r\n").unwrap(),
            [
                Kind::ObjectStart,
                Kind::Key("a\\u0062"),
                Kind::ArrayStart,
                Kind::Number("1.50"),
                Kind::Text("x\\n"),
                Kind::Literal("true"),
                Kind::ArrayEnd,
                Kind::Key(""),
                Kind::ObjectStart,
                Kind::ObjectEnd,
                Kind::ObjectEnd,
            ]
        );
    }

    #[test]
    fn returns_a_value_verbatim() {
        let mut tokens = Tokens::new("[ { \"a\" : [ 1,2 ] } , -0.10 ]", 3);
        tokens.next_token().unwrap();
        for expected in ["{ \"a\" : [ 1,2 ] }", "-0.10"] {
            let first = tokens.next_token().unwrap().unwrap();
            assert_eq!(tokens.rest_of_value(first).unwrap(), expected);
        }
        assert_eq!(tokens.next_token().unwrap().unwrap().kind, Kind::ArrayEnd);
        assert_eq!(tokens.next_token(), Ok(None));
        assert_eq!(tokens.next_token(), Ok(None));
    }

    #[test]
    fn names_the_broken_rule_and_its_place() {
        use SyntaxFault::*;
        for (text, expected) in [
            ("", (UnexpectedEnd, 1, 1)),
            (" \n ", (UnexpectedEnd, 2, 2)),
            ("{\"a\":1", (UnexpectedEnd, 1, 7)),
            ("{\"a\"", (UnexpectedEnd, 1, 5)),
            ("[\"é€😀", (UnexpectedEnd, 1, 6)),
            ("[1,]", (ExpectedValue, 1, 4)),
            ("[,1]", (ExpectedValue, 1, 2)),
            ("\u{feff}1", (ExpectedValue, 1, 1)),
            ("\u{b}1", (ExpectedValue, 1, 1)),
            ("\u{c}1", (ExpectedValue, 1, 1)),
            ("+1", (ExpectedValue, 1, 1)),
            (".5", (ExpectedValue, 1, 1)),
            ("tru", (ExpectedValue, 1, 1)),
            ("{'a':1}", (ExpectedKey, 1, 2)),
            ("{\"a\":1,}", (ExpectedKey, 1, 8)),
            ("{\"a\" 1}", (ExpectedColon, 1, 6)),
            ("[1 2]", (ExpectedComma, 1, 4)),
            ("[1}", (ExpectedComma, 1, 3)),
            ("{\"a\":1]", (ExpectedComma, 1, 7)),
            ("[\n  \"é\", NaN]", (NotFinite, 2, 8)),
            ("-Infinity", (NotFinite, 1, 2)),
            ("01", (MalformedNumber, 1, 1)),
            ("-00.5", (MalformedNumber, 1, 2)),
            ("-", (MalformedNumber, 1, 2)),
            ("1.", (MalformedNumber, 1, 3)),
            ("1e+", (MalformedNumber, 1, 4)),
            ("\"a\tb\"", (ControlCharacter, 1, 3)),
            ("\"a\nb\"", (ControlCharacter, 1, 3)),
            ("\"\u{1f}\"", (ControlCharacter, 1, 2)),
            ("\"\\x41\"", (UnknownEscape, 1, 2)),
            ("\"\\u12", (UnknownEscape, 1, 2)),
            ("\"\\u+123\"", (UnknownEscape, 1, 2)),
            ("\"\\u€€€€\"", (UnknownEscape, 1, 2)),
            ("1 2", (TrailingText, 1, 3)),
            ("{}\0", (TrailingText, 1, 3)),
            ("1\u{a0}", (TrailingText, 1, 2)),
        ] {
            assert_eq!(fault(text), expected, "{text:?}");
        }
    }

    #[test]
    fn refuses_depth_beyond_the_limit_without_recursion() {
        assert!(kinds("[[{\"a\":1}],[[]]]").is_ok());
        let at = |column| Position { line: 1, column };
        let too_deep = |column| JsonError::TooDeep { depth_max: 3, at: at(column) };
        assert_eq!(kinds("[[{\"a\":[]}]]"), Err(too_deep(8)));
        assert_eq!(kinds(&"[".repeat(1_000_000)), Err(too_deep(4)));
        let mut tokens = Tokens::new("[]", 0);
        assert!(matches!(tokens.next_token(), Err(JsonError::TooDeep { .. })));
        let deep = "[".repeat(1_000_000);
        let mut tokens = Tokens::new(&deep, usize::MAX);
        let first = tokens.next_token().unwrap().unwrap();
        assert!(tokens.rest_of_value(first).is_err());
    }

    #[test]
    fn unescapes_text() {
        assert!(matches!(unescape("plain é"), Some(Cow::Borrowed("plain é"))));
        assert_eq!(
            unescape(r#"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00\u0000é😀"#).unwrap(),
            "\"\\/\u{8}\u{c}\n\r\té😀\0é😀"
        );
        assert_eq!(unescape("\\ud83d"), None);
        assert_eq!(unescape("\\ude00\\ud83d"), None);
    }
}
