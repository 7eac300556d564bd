//! Bodies that were sent compressed: undone within a limit, since a few bytes can stand for gigabytes.

use std::io::{self, Read};

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::{ApiError, body::too_large};

/// Largest window of a zstd frame, as a power of two: 8 MiB, the most that RFC 9659 lets a client send. The format itself
/// goes to gigabytes, which a frame of a few bytes could make the decoder take.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// What a client did to a body before it sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentEncoding {
    /// Nothing.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl ContentEncoding {
    /// Returns what the headers of a request say.
    ///
    /// # Errors
    ///
    /// A refusal of status 415 where it is something else, or more than one.
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut encoding = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let next = match value.as_bytes().trim_ascii().to_ascii_lowercase().as_slice() {
                b"identity" => continue,
                b"gzip" | b"x-gzip" => Self::Gzip,
                b"zstd" => Self::Zstd,
                _ => return Err(unsupported()),
            };
            if encoding != Self::Identity {
                return Err(unsupported());
            }
            encoding = next;
        }
        Ok(encoding)
    }

    /// Undoes it. Takes a processor for as long as it takes.
    ///
    /// # Errors
    ///
    /// A refusal of status 413 where more than `size_max` bytes come out, and of 400 where the bytes are damaged.
    pub fn decode(self, body: Bytes, size_max: usize) -> Result<Bytes, ApiError> {
        let (name, decoded) = match self {
            Self::Identity => return Ok(body),
            Self::Gzip => ("gzip", read_to_end(MultiGzDecoder::new(&body[..]), size_max)),
            Self::Zstd => ("zstd", zstd_decoder(&body).and_then(|decoder| read_to_end(decoder, size_max))),
        };
        match decoded {
            Ok(decoded) if decoded.len() > size_max => Err(too_large(size_max)),
            Ok(decoded) => Ok(decoded.into()),
            Err(error) => {
                let message = format!("the body is not what Content-Encoding: {name} says it is: {error}");
                Err(ApiError::refusal(StatusCode::BAD_REQUEST, "broken_body", message))
            }
        }
    }
}

fn zstd_decoder(body: &[u8]) -> io::Result<ZstdDecoder<'_, &[u8]>> {
    let mut decoder = ZstdDecoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Reads one byte more than allowed, to tell what fits from what does not.
fn read_to_end(decoder: impl Read, size_max: usize) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder.take(size_max as u64 + 1).read_to_end(&mut decoded)?;
    Ok(decoded)
}

fn unsupported() -> ApiError {
    let message = "the body is compressed in a way that is not read: send it as it is, or with Content-Encoding: gzip or zstd";
    ApiError::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SIZE_MAX: usize = 100_000;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn decode(encoding: ContentEncoding, body: Vec<u8>) -> Result<Vec<u8>, (u16, &'static str)> {
        let decoded = encoding.decode(body.into(), SIZE_MAX);
        decoded.map(|bytes| bytes.to_vec()).map_err(|error| (error.status().as_u16(), error.code()))
    }

    #[test]
    fn undoes_what_was_done() {
        for size in [0, 1, 1000, SIZE_MAX] {
            let text: Vec<u8> = (0..size).map(|number| (number % 251) as u8).collect();
            assert_eq!(decode(ContentEncoding::Identity, text.clone()).unwrap(), text);
            assert_eq!(decode(ContentEncoding::Gzip, gzip(&text)).unwrap(), text);
            assert_eq!(decode(ContentEncoding::Zstd, zstd(&text)).unwrap(), text);
            // Both formats may be joined.
            let (head, tail) = text.split_at(size / 2);
            assert_eq!(decode(ContentEncoding::Gzip, [gzip(head), gzip(tail)].concat()).unwrap(), text);
            assert_eq!(decode(ContentEncoding::Zstd, [zstd(head), zstd(tail)].concat()).unwrap(), text);
        }
    }

    #[test]
    fn stops_at_the_limit_of_what_comes_out() {
        for size in [SIZE_MAX + 1, 100 * SIZE_MAX] {
            let zeros = vec![0; size];
            assert_eq!(decode(ContentEncoding::Gzip, gzip(&zeros)), Err((413, "body_too_large")));
            assert_eq!(decode(ContentEncoding::Zstd, zstd(&zeros)), Err((413, "body_too_large")));
        }
    }

    #[test]
    fn refuses_what_is_damaged() {
        let (gzip, zstd) = (gzip(b"a text of some length"), zstd(b"a text of some length"));
        for (encoding, whole) in [(ContentEncoding::Gzip, gzip), (ContentEncoding::Zstd, zstd)] {
            for damaged in [
                whole[..whole.len() - 1].to_vec(),
                [&whole[..], b"more"].concat(),
                Vec::new(),
                b"[]".to_vec(),
                whole.iter().map(|byte| !byte).collect(),
            ] {
                assert_eq!(decode(encoding, damaged), Err((400, "broken_body")), "{encoding:?}");
            }
        }
    }

    #[test]
    fn refuses_a_frame_that_wants_a_large_window() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(b"small").unwrap();
        let body = encoder.finish().unwrap();
        assert_eq!(decode(ContentEncoding::Zstd, body), Err((400, "broken_body")));
    }

    #[test]
    fn knows_two_encodings_one_at_a_time() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            ContentEncoding::of(&headers).ok()
        };
        assert_eq!(of(&[]), Some(ContentEncoding::Identity));
        assert_eq!(of(&["identity"]), Some(ContentEncoding::Identity));
        assert_eq!(of(&["GZip"]), Some(ContentEncoding::Gzip));
        assert_eq!(of(&["x-gzip"]), Some(ContentEncoding::Gzip));
        assert_eq!(of(&["zstd"]), Some(ContentEncoding::Zstd));
        for refused in [&["br"][..], &["gzip, zstd"], &["gzip", "gzip"], &[""]] {
            assert_eq!(of(refused), None, "{refused:?}");
        }
    }
}
