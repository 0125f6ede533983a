//! The body of every answer: nothing, or one piece of bytes that is there already.

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What follows the fields of a response; its length is always known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// No bytes: redirects and answers to HEAD.
    Empty,
    /// One piece, sent whole.
    Full(Bytes),
}

impl Body {
    /// How many bytes are still to be sent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Full(content) => content.len() as u64,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match std::mem::replace(&mut *self, Self::Empty) {
            Self::Empty => None,
            Self::Full(content) => Some(Ok(Frame::data(content))),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    #[test]
    fn gives_its_piece_once_and_ends() {
        let mut body = Body::Full(Bytes::from_static(b"page"));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(body.size_hint().exact(), Some(4));
        assert!(!body.is_end_stream());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
            panic!("the piece is there at once")
        };
        assert_eq!(frame.into_data().ok(), Some(Bytes::from_static(b"page")));
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
    }
}
