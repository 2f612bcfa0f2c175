//! What is kept of a request's head while its handler runs.
//!
//! A head refers to the connection's read buffer: who keeps one keeps 8 KiB, and the connection
//! takes another buffer for what comes next. Where nobody can ask for the head, an outline of it
//! is enough.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::app::RequestHead;

/// A head, or what logs say of it.
pub(super) enum Kept {
    /// All of it: the handler sees the request, or that of an exception may.
    Whole(Arc<RequestHead>),
    /// Nobody can ask for more.
    Outline {
        /// As sent.
        method: Method,
        /// Unique in the process, for logs.
        id: u64,
    },
}

impl Kept {
    pub(super) fn method(&self) -> &Method {
        match self {
            Self::Whole(head) => &head.method,
            Self::Outline { method, .. } => method,
        }
    }

    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Whole(head) => head.id,
            Self::Outline { id, .. } => *id,
        }
    }

    /// What a [`Request`](crate::app::Request) is made of.
    pub(super) fn whole(&self) -> Option<&Arc<RequestHead>> {
        match self {
            Self::Whole(head) => Some(head),
            Self::Outline { .. } => None,
        }
    }

    /// The map of the headers, if nobody else can see them.
    pub(super) fn take_headers(&mut self) -> Option<HeaderMap> {
        match self {
            Self::Whole(head) => Arc::get_mut(head).map(|head| std::mem::take(&mut head.headers)),
            Self::Outline { .. } => None,
        }
    }
}

impl From<Arc<RequestHead>> for Kept {
    fn from(head: Arc<RequestHead>) -> Self {
        Self::Whole(head)
    }
}

impl From<&Arc<RequestHead>> for Kept {
    fn from(head: &Arc<RequestHead>) -> Self {
        Self::Whole(Arc::clone(head))
    }
}
