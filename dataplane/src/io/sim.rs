//! The seeded simulator behind the io trait (in progress).
