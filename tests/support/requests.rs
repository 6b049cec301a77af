//! Reads the requests of a connection, for servers of tests that answer as they like.

#![allow(unreachable_pub, reason = "a module of several tests")]

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The head of the next request; its body is read and dropped. `None`: the client has closed.
pub async fn next_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<String> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let length = header(&head, "content-length").map_or(0, |n| n.parse().unwrap());
    while buffer.len() < length {
        read_more(stream, buffer).await?;
    }
    buffer.drain(..length);
    Some(head)
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(buffer).await, Ok(1..)).then_some(())
}

/// The value of a header.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
