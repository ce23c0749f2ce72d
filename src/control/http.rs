//! As much of HTTP as a scraper of metrics needs (RFC 9112): a GET, and an answer after which the connection is closed.

use std::collections::BTreeMap;

use super::Page;

/// True for what begins like a request that is understood here.
pub(super) fn is_begun(received: &[u8]) -> bool {
    [b"GET ".as_slice(), b"HEAD "].iter().any(|method| received.starts_with(method))
}

/// The answer to a request, if its head is complete.
pub(super) fn answer(
    pages: &mut BTreeMap<&'static str, Page>,
    received: &[u8],
    at_end: bool,
) -> Option<Vec<u8>> {
    let end = |mark: &[u8]| received.windows(mark.len()).position(|window| window == mark);
    if end(b"\r\n\r\n").or(end(b"\n\n")).is_none() && !at_end {
        return None;
    }
    let head = received.starts_with(b"HEAD ");
    let line = received.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let target = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let page = std::str::from_utf8(path).ok().and_then(|path| pages.get_mut(path));
    let (status, (media_type, text)) = match page {
        Some(page) => ("200 OK", page()),
        None => ("404 Not Found", ("text/plain", "there is no such page\n".to_owned())),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    if !head {
        answer += &text;
    }
    Some(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(request: &str, at_end: bool) -> Option<String> {
        let mut pages: BTreeMap<&'static str, Page> = BTreeMap::new();
        pages.insert("/metrics", Box::new(|| ("text/plain", "a 1\n".to_owned())));
        assert!(is_begun(request.as_bytes()));
        answer(&mut pages, request.as_bytes(), at_end).map(|answer| String::from_utf8(answer).unwrap())
    }

    #[test]
    fn a_get_is_answered_when_its_head_is_complete() {
        for part in ["GET ", "GET /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nHost: a\r\n"] {
            assert_eq!(answered(part, false), None);
        }
        let whole = "GET /metrics?x=y HTTP/1.1\r\nHost: a\r\n\r\n";
        let expected =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
        assert_eq!(answered(whole, false).unwrap(), expected.to_owned() + "a 1\n");
        assert_eq!(answered("HEAD /metrics HTTP/1.1\n\n", false).unwrap(), expected);
        assert_eq!(answered("GET /metrics", true).unwrap(), expected.to_owned() + "a 1\n");
        for wrong in ["GET / HTTP/1.1\r\n\r\n", "GET  \r\n\r\n", "GET /metric HTTP/1.0\r\n\r\n"] {
            assert!(answered(wrong, false).unwrap().starts_with("HTTP/1.1 404 "), "{wrong}");
        }
        assert!(!is_begun(b"{\"command\":\"status\"}") && !is_begun(b"POST / HTTP/1.1\r\n"));
    }
}
