//! Writes the definitions to the folder that the charts copy them from.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match write() {
        Ok(path) => {
            println!("wrote {}", path.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("crdgen: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("yaml/tradingregions.regions.trading.dev.yaml");
    std::fs::write(&path, crds::definition_yaml()?)?;
    Ok(path)
}
