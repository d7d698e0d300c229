//! Objects for unit tests.

use crds::TradingRegion;

/// The example that the API types ship, as the API server would hold it.
pub(crate) fn example() -> TradingRegion {
    let text = include_str!("../../crds/examples/trade-matching.yaml");
    let mut object: TradingRegion = serde_saphyr::from_str(text).unwrap();
    object.metadata.uid = Some("0c8d4f6e-0000-4000-8000-000000000001".to_owned());
    object.metadata.resource_version = Some("7".to_owned());
    object.metadata.generation = Some(3);
    object
}
