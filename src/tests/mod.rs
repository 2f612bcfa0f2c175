//! Tests of several layers together.

mod bridge;
