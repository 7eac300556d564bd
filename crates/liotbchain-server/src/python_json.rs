//! The text that Python's `json.dumps(json.loads(text))` gives.
//!
//! Clients of the Python original sign that text and then send the same value in any spelling, so a
//! signature that fails over the text as sent is tried over this one.
//! Where Python's text would not be JSON (`Infinity`), there is none. Unlike CPython since 3.11,
//! integers of more than 4,300 digits have their text, too.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use thiserror::Error;

use crate::json_keys::JSON_DEPTH_MAX;
use crate::json_text::{JsonError, Kind, Position, Token, Tokens, ascii_spelling};

/// Why a text has no Python form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PythonJsonError {
    /// The text is not JSON, or too deep.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A number with a fraction or an exponent is beyond 64-bit floating point.
    #[error("Python reads the number at {at} as Infinity, which JSON does not have")]
    Infinite {
        /// Where the number stands.
        at: Position,
    },
}

/// Returns the text that Python's `json.dumps(json.loads(text))` gives.
///
/// It can be six times as long as `text`. Of a key that stands twice, the last value wins, at the
/// first one's place.
///
/// # Errors
///
/// [`PythonJsonError::Json`] and [`PythonJsonError::Infinite`].
pub fn python_form(text: &str) -> Result<String, PythonJsonError> {
    let mut tokens = Tokens::new(text, JSON_DEPTH_MAX);
    let mut form = Form::default();
    while let Some(token) = tokens.next_token()? {
        form.write(token);
    }
    form.finish().map_err(|NotFinite { start }| {
        let at = tokens.position(start);
        PythonJsonError::Infinite { at }
    })
}

/// Offset, in the input, of a number that Python reads as an infinity.
#[derive(Clone, Copy)]
struct NotFinite {
    start: usize,
}

/// The form as it grows. Members are written in the order of the input; what duplicate keys change
/// is noted in `cuts` and done once at the end, so that no byte is moved twice.
#[derive(Default)]
struct Form<'a> {
    text: String,
    open: Vec<Open<'a>>,
    cuts: BTreeMap<usize, Cut>,
    /// By their offsets in the text: a duplicate key can still drop an infinity.
    infinities: BTreeMap<usize, NotFinite>,
}

enum Open<'a> {
    Array,
    Object {
        /// Where the value of each key's first occurrence lies in the text.
        first_values: HashMap<Cow<'a, str>, Range<usize>>,
        member: Member<'a>,
    },
}

/// The member that is being written.
#[derive(Default)]
struct Member<'a> {
    key: Cow<'a, str>,
    /// Where it starts, its separator included.
    start: usize,
    value_start: usize,
}

/// Says that the text up to `resume` gives way to another part of the text.
struct Cut {
    resume: usize,
    instead: Range<usize>,
}

impl<'a> Form<'a> {
    fn write(&mut self, token: Token<'a>) {
        match token.kind {
            Kind::Key(content) => return self.write_key(content),
            Kind::ObjectEnd | Kind::ArrayEnd => drop(self.open.pop()),
            _ if matches!(self.open.last(), Some(Open::Array)) => self.separate(),
            _ => {}
        }
        match token.kind {
            Kind::ObjectStart => {
                self.text.push('{');
                self.open.push(Open::Object { first_values: HashMap::new(), member: Member::default() });
                return;
            }
            Kind::ArrayStart => {
                self.text.push('[');
                self.open.push(Open::Array);
                return;
            }
            Kind::ObjectEnd => self.text.push('}'),
            Kind::ArrayEnd => self.text.push(']'),
            Kind::Key(content) | Kind::Text(content) => {
                self.write_quoted(&ascii_spelling(content));
            }
            Kind::Number(number) => match python_number(number) {
                Some(number) => self.text.push_str(&number),
                None => {
                    let start = token.start;
                    self.infinities.insert(self.text.len(), NotFinite { start });
                    self.text.push_str("Infinity");
                }
            },
            Kind::Literal(word) => self.text.push_str(word),
        }
        self.end_member();
    }

    fn write_key(&mut self, content: &'a str) {
        let key = ascii_spelling(content);
        let start = self.text.len();
        self.separate();
        self.write_quoted(&key);
        self.text.push_str(": ");
        let value_start = self.text.len();
        if let Some(Open::Object { member, .. }) = self.open.last_mut() {
            *member = Member { key, start, value_start };
        }
    }

    fn write_quoted(&mut self, content: &str) {
        self.text.push('"');
        self.text.push_str(content);
        self.text.push('"');
    }

    /// Writes the comma before an element or a key, unless it is its container's first.
    fn separate(&mut self) {
        // Strings end with a quote, so a bracket at the end is one that was just opened.
        if !self.text.ends_with(['[', '{']) {
            self.text.push_str(", ");
        }
    }

    /// Takes note of a value that has just been written, if it is a member's.
    fn end_member(&mut self) {
        let Some(Open::Object { first_values, member }) = self.open.last_mut() else {
            return;
        };
        let member = std::mem::take(member);
        let end = self.text.len();
        match first_values.entry(member.key) {
            Entry::Vacant(entry) => {
                entry.insert(member.value_start..end);
            }
            Entry::Occupied(entry) => {
                let first = entry.get();
                let by_last = Cut { resume: first.end, instead: member.value_start..end };
                self.cuts.insert(first.start, by_last);
                let by_nothing = Cut { resume: end, instead: end..end };
                self.cuts.insert(member.start, by_nothing);
            }
        }
    }

    fn finish(mut self) -> Result<String, NotFinite> {
        if self.cuts.is_empty() {
            return match self.infinities.pop_first() {
                Some((_, not_finite)) => Err(not_finite),
                None => Ok(self.text),
            };
        }
        let mut finished = String::with_capacity(self.text.len());
        let whole = 0..self.text.len();
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            let cut = self.cuts.range(part.clone()).next();
            let copied = part.start..cut.map_or(part.end, |(&start, _)| start);
            if let Some((_, &not_finite)) = self.infinities.range(copied.clone()).next() {
                return Err(not_finite);
            }
            finished.push_str(&self.text[copied]);
            if let Some((_, cut)) = cut {
                parts.push(cut.resume..part.end);
                parts.push(cut.instead.clone());
            }
        }
        Ok(finished)
    }
}

/// Returns a number as Python writes it, or `None` where that is an infinity.
fn python_number(number: &str) -> Option<Cow<'_, str>> {
    if !number.contains(['.', 'e', 'E']) {
        return Some(Cow::Borrowed(match number {
            "-0" => "0",
            integer => integer,
        }));
    }
    let float: f64 = number.parse().ok()?;
    float.is_finite().then(|| Cow::Owned(python_float(float)))
}

/// Returns Python's `repr` of a finite float: of the shortest texts that read back as it the closest,
/// plain from 1e-4 up to below 1e16, else with an exponent of at least two digits.
fn python_float(float: f64) -> String {
    let shortest = format!("{float:e}");
    let (mantissa, exponent) = split_exponent(&shortest);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    if (-4..16).contains(&exponent) {
        let decimals = (digits as i32 - 1 - exponent).max(1) as usize;
        return format!("{float:.decimals$}");
    }
    // Of two that are equally close Python takes the even one, as rounding does, and Rust's
    // shortest text the upper one. Rounding alone would miss next to some powers of two, where
    // the closest text of this length already reads as the neighbour below.
    let rounded = format!("{float:.*e}", digits - 1);
    let (mantissa, exponent) = match rounded.parse() == Ok(float) {
        true => split_exponent(&rounded),
        false => (mantissa, exponent),
    };
    format!("{mantissa}e{exponent:+03}")
}

fn split_exponent(scientific: &str) -> (&str, i32) {
    let (mantissa, exponent) = scientific.split_once('e').expect("Rust writes an exponent where asked to");
    let exponent = exponent.parse().expect("the exponent of a 64-bit float has at most three digits");
    (mantissa, exponent)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, BufWriter};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::json_keys::check_unambiguous;

    /// The cases that the Python original was tried with: as sent, and the text it verified.
    const ORIGINAL_CASES: &[(&str, &str)] = &[
        (r#"{"v": 1e16}"#, r#"{"v": 1e+16}"#),
        (r#"{"v": 1.10}"#, r#"{"v": 1.1}"#),
        (r#"{"v": -0.0}"#, r#"{"v": -0.0}"#),
        (r#"{"v": -0}"#, r#"{"v": 0}"#),
        (r#"{"v": 1E5}"#, r#"{"v": 100000.0}"#),
        (r#"{"v": 1.0}"#, r#"{"v": 1.0}"#),
        (r#"{"v": 1e-7}"#, r#"{"v": 1e-07}"#),
        (r#"{"v": 0.30000000000000004}"#, r#"{"v": 0.30000000000000004}"#),
        (r#"{"v": 1e22}"#, r#"{"v": 1e+22}"#),
        (r#"{"v": 123456789012345680000.0}"#, r#"{"v": 1.2345678901234568e+20}"#),
        (r#"{"v": 123456789012345680000}"#, r#"{"v": 123456789012345680000}"#),
        (r#"{"v": 5e-324}"#, r#"{"v": 5e-324}"#),
        (r#"{"v": 9223372036854775808}"#, r#"{"v": 9223372036854775808}"#),
        (r#"{"v": 9007199254740993}"#, r#"{"v": 9007199254740993}"#),
        (r#"{"v": "é€😀"}"#, r#"{"v": "\u00e9\u20ac\ud83d\ude00"}"#),
        (r#"{"v": "\u00e9\ud83d\ude00"}"#, r#"{"v": "\u00e9\ud83d\ude00"}"#),
        (r#"{"v": "\u00E9"}"#, r#"{"v": "\u00e9"}"#),
        (r#"{"v": "\ud83d"}"#, r#"{"v": "\ud83d"}"#),
        (r#"{"v": "\u0000"}"#, r#"{"v": "\u0000"}"#),
        (r#"{"v": "a\/b"}"#, r#"{"v": "a/b"}"#),
        ("{\"v\": \"a\u{7f}b\"}", r#"{"v": "a\u007fb"}"#),
        ("{\"v\": \"\u{2028}\"}", r#"{"v": "\u2028"}"#),
        (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#),
        (r#"{"a":1,"b":2}"#, r#"{"a": 1, "b": 2}"#),
        (r#"{"b": 1, "a": 2}"#, r#"{"b": 1, "a": 2}"#),
        ("{ \"a\" :\r\n\t1 }", r#"{"a": 1}"#),
        (r#"{"é": 1}"#, r#"{"\u00e9": 1}"#),
        (r#"{"": 1}"#, r#"{"": 1}"#),
        (r#"{"v": "a\tb"}"#, r#"{"v": "a\tb"}"#),
        (r#"{"v": 1e2}"#, r#"{"v": 100.0}"#),
        (r#"{"v": 0.0001}"#, r#"{"v": 0.0001}"#),
        (r#"{"v": 0.00001}"#, r#"{"v": 1e-05}"#),
        (r#"{"v": 1717979369.243414}"#, r#"{"v": 1717979369.243414}"#),
        (r#"{"v": 0.1234567890123456789}"#, r#"{"v": 0.12345678901234568}"#),
    ];

    const MORE_CASES: &[&str] = &[
        "0e0",
        "-0e-9",
        "1e15",
        "9999999999999998.0",
        "9999999999999999.0",
        "1e-400",
        "-1e-400",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "1e309",
        "-1e999999999999999999999",
        "0e999999999999999999999",
        "1e-999999999999999999999",
        "2.2250738585072011e-308",
        "9007199254740993.0",
        "8.5",
        "100.0",
        "1e23",
        "1e+007",
        "0.000123456789e-300",
        "[]",
        "{}",
        "[[],{}]",
        "\"\"",
        " null ",
        "true",
        "[false , 1]",
        r#""\u001f\u007f\u0080 ~\u0022\u005c\u002F\b\f\n\r\t""#,
        r#""\uDE00\uD83D""#,
        r#""\ud83d\ud83d\ude00""#,
        r#""\ud83dé\ude00""#,
        r#""[{""#,
        r#"["[","{","x"]"#,
        r#"{"a":{"x":1,"x":[1,{"y":2,"y":3}]},"b":2,"\u0061":{"z":1,"z":2,"w":3},"b":4,"a":[5]}"#,
        r#"{"a":[1],"a":[2],"a":[3]}"#,
        r#"{"é":1,"\u00E9":2}"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
        r#"{"a":1,"b":2,"a":{"a":3,"a":4},"b":{"a":5,"a":6,"a":{"a":7,"a":8}}}"#,
        r#"{"a":1e999,"a":1}"#,
        r#"{"a":1,"a":1e999}"#,
        r#"{"a":[1,-1e999],"b":1,"a":{"c":1e999,"c":2}}"#,
        r#"[1e999,nul]"#,
        "nul",
        "[1,]",
        "{\"a\"}",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "01",
        "1.",
        "\"\n\"",
        "1 1",
    ];

    #[test]
    fn gives_what_the_original_verified() {
        for &(sent, verified) in ORIGINAL_CASES {
            assert_eq!(python_form(sent).as_deref(), Ok(verified), "{sent}");
        }
        let big = format!("{{\"v\": 1{}}}", "0".repeat(400));
        assert_eq!(python_form(&big), Ok(big));
        let deep = "[".repeat(50) + &"]".repeat(50);
        assert_eq!(python_form(&deep), Ok(deep));
    }

    #[test]
    fn has_no_form_where_python_leaves_json() {
        let refused = python_form("{\"v\":\n [0.5, -1e400]}");
        let at = Position { line: 2, column: 8 };
        assert_eq!(refused, Err(PythonJsonError::Infinite { at }));
        for literal in ["NaN", "Infinity", "-Infinity"] {
            let refused = python_form(&format!("{{\"v\": {literal}}}"));
            assert!(matches!(refused, Err(PythonJsonError::Json(_))), "{literal}");
        }
    }

    #[test]
    fn refuses_depth_beyond_the_limit() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
            assert!(python_form(&nested(JSON_DEPTH_MAX)).is_ok());
            for depth in [JSON_DEPTH_MAX + 1, 1_000_000] {
                let refused = python_form(&nested(depth));
                let Err(PythonJsonError::Json(JsonError::TooDeep { depth_max, .. })) = refused else {
                    panic!("{depth} levels of {open} gave {refused:?}");
                };
                assert_eq!(depth_max, JSON_DEPTH_MAX);
            }
        }
    }

    /// Quadratic work would take minutes here.
    #[test]
    fn masters_many_duplicate_keys_at_every_level() {
        let members: String = (0..100_000).map(|n| format!("\"{n}\":{n},")).collect();
        let text = format!("{{{members}{members}\"a\":0}}");
        let form = python_form(&text).unwrap();
        let once = form.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        assert_eq!(once.split(", ").count(), 100_001);
        assert!(once.starts_with("\"0\": 0, \"1\": 1, "));
        assert!(check_unambiguous(&text).is_err());
        assert_eq!(check_unambiguous(&form), Ok(()));

        let dead = "9".repeat(1000);
        let mut nested = format!("\"{}\"", "\u{7f}".repeat(200_000));
        for _ in 0..JSON_DEPTH_MAX {
            nested = format!("{{\"a\":{dead},\"b\":{dead},\"a\":{nested}}}");
        }
        let form = python_form(&nested).unwrap();
        assert_eq!(form.matches("\"a\": ").count(), JSON_DEPTH_MAX);
        assert_eq!(form.matches("\"b\": ").count(), JSON_DEPTH_MAX);
        assert_eq!(form.matches("\\u007f").count(), 200_000);
    }

    /// What Python says of each text, in one process: its form, or that it has none.
    fn ask_python(texts: &[String]) -> Vec<Result<String, &'static str>> {
        const PROGRAM: &str = r#"
import json, sys
if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
def refuse(word):
    raise ValueError(word)
for line in sys.stdin:
    text = bytes.fromhex(line).decode("utf-8")
    try:
        value = json.loads(text, parse_constant=refuse)
    except ValueError:
        print("not JSON")
        continue
    try:
        print(" " + json.dumps(value, allow_nan=False))
    except ValueError:
        print("infinite")
"#;
        let mut python = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed for this test (apt-get install python3)");
        let mut stdin = BufWriter::new(python.stdin.take().unwrap());
        let stdout = BufReader::new(python.stdout.take().unwrap());
        let answers = std::thread::scope(|scope| {
            scope.spawn(move || {
                use std::io::Write;
                for text in texts {
                    for byte in text.bytes() {
                        write!(stdin, "{byte:02x}").unwrap();
                    }
                    writeln!(stdin).unwrap();
                }
            });
            let answer = |line: String| match line.strip_prefix(' ') {
                Some(form) => Ok(form.to_owned()),
                None if line == "infinite" => Err("infinite"),
                None => Err("not JSON"),
            };
            stdout.lines().map(|line| answer(line.unwrap())).collect()
        });
        assert!(python.wait().unwrap().success());
        answers
    }

    fn assert_agrees_with_python(texts: &[String]) {
        let answers = ask_python(texts);
        assert_eq!(answers.len(), texts.len());
        for (text, answer) in texts.iter().zip(answers) {
            let ours = python_form(text).map_err(|error| match error {
                PythonJsonError::Infinite { .. } => "infinite",
                _ => "not JSON",
            });
            assert_eq!(ours, answer, "{text:?}");
        }
    }

    fn generate<T>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
        let mut runner = TestRunner::default();
        let next = |_| strategy.new_tree(&mut runner).unwrap().current();
        (0..count).map(next).collect()
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?(0|[1-9][0-9]{0,30})",
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
            any::<f64>()
                .prop_filter("finite", |float| float.is_finite())
                .prop_map(|float| format!("{float:e}")),
            any::<f32>()
                .prop_filter("finite", |float| float.is_finite())
                .prop_map(|float| format!("{:.7e}", f64::from(float))),
            (-50_000..50_000_i32).prop_map(|hundredths| format!("{:.2}", f64::from(hundredths) / 100.0)),
        ]
    }

    fn string() -> impl Strategy<Value = String> {
        let plain =
            any::<char>().prop_filter("to be escaped", |&char| char >= ' ' && char != '"' && char != '\\');
        let piece = prop_oneof![
            4 => "[a-z0-9 /{}\\[\\]]{0,6}",
            1 => plain.prop_map(String::from),
            1 => select(vec![r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", "\u{7f}"])
                .prop_map(String::from),
            1 => "\\\\u[0-9a-fA-F]{4}",
            1 => "\\\\u00[0-9a-fA-F]{2}",
            1 => "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9A-F]{2}",
            1 => "\\\\u[dD][89a-fA-F][0-9a-f]{2}",
        ];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
    }

    fn json() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            3 => select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"é\"", "\"\\u00E9\""])
                .prop_map(String::from),
            1 => string(),
        ];
        let space = || "[ \t\r\n]{0,2}";
        let scalar = prop_oneof![
            4 => number(),
            3 => string(),
            1 => select(vec!["true", "false", "null"]).prop_map(String::from),
        ];
        let value = scalar.prop_recursive(6, 60, 6, move |inner| {
            let element = (space(), inner.clone(), space()).prop_map(|(a, b, c)| a + &b + &c);
            let member = (space(), key.clone(), space(), element.clone())
                .prop_map(|(a, b, c, d)| a + &b + &c + ":" + &d);
            prop_oneof![
                prop::collection::vec(element, 0..6).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            ]
        });
        (space(), value, space()).prop_map(|(a, b, c)| a + &b + &c)
    }

    /// A JSON text with one character taken out, put in or replaced: often no JSON any more.
    fn damaged_json() -> impl Strategy<Value = String> {
        let symbol = select("\"\\{}[]:,0123.-+eEuntfNI \n\t\u{1}\u{7f}é".chars().collect::<Vec<_>>());
        (json(), any::<prop::sample::Index>(), 0..3, symbol).prop_map(|(text, index, kind, symbol)| {
            let mut chars: Vec<char> = text.chars().collect();
            let at = index.index(chars.len());
            match kind {
                0 => drop(chars.remove(at)),
                1 => chars.insert(at, symbol),
                _ => chars[at] = symbol,
            }
            chars.into_iter().collect()
        })
    }

    #[test]
    fn agrees_with_python_on_values() {
        let mut texts: Vec<String> = MORE_CASES.iter().map(|&text| text.to_owned()).collect();
        texts.extend(ORIGINAL_CASES.iter().map(|&(sent, _)| sent.to_owned()));
        texts.extend(generate(json(), 4000));
        assert_agrees_with_python(&texts);
    }

    #[test]
    fn agrees_with_python_on_what_is_json() {
        assert_agrees_with_python(&generate(damaged_json(), 4000));
    }

    #[test]
    fn agrees_with_python_on_floats() {
        let mut floats = generate(any::<u64>().prop_map(f64::from_bits), 10_000);
        for exponent in -1074..1024 {
            let power = 2_f64.powi(exponent);
            floats.extend([power.next_down(), power, power.next_up()]);
        }
        for exponent in -325..309 {
            let power: f64 = format!("1e{exponent}").parse().unwrap();
            floats.extend([power.next_down(), power, power.next_up()]);
        }
        // Few binary places: often just between two decimal texts.
        let halves = (0..1_u64 << 53, 0..60).prop_map(|(bits, places)| bits as f64 / 2_f64.powi(places));
        floats.extend(generate(halves, 10_000));
        floats.retain(|float| float.is_finite());
        // Written in full, so that reading has to round.
        let texts: Vec<String> = floats.iter().map(|float| format!("{float:.30e}")).collect();
        assert_agrees_with_python(&texts);
    }

    proptest! {
        #[test]
        fn is_its_own_form(text in json()) {
            if let Ok(form) = python_form(&text) {
                prop_assert!(form.is_ascii());
                prop_assert_eq!(check_unambiguous(&form), Ok(()));
                let again = python_form(&form);
                prop_assert_eq!(again.as_deref(), Ok(form.as_str()));
                let value: Result<serde_json::Value, _> = serde_json::from_str(&form);
                prop_assert!(value.is_ok() || form.contains("\\ud"), "{}", form);
            }
        }

        #[test]
        fn takes_any_text_without_panic(text in any::<String>(), damaged in damaged_json()) {
            for text in [text, damaged] {
                let form = python_form(&text);
                let check = check_unambiguous(&text);
                let is_json = |error| matches!(error, Some(PythonJsonError::Json(_)));
                if check.is_ok() {
                    prop_assert!(!is_json(form.err()));
                }
            }
        }
    }
}
