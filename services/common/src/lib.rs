//! services-common
