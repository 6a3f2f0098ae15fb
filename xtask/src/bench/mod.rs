//! Measurements: each prints a table for people and writes `target/bench/NAME.json`, one flat object with units in its
//! keys.

pub(crate) mod gas;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::tools;

/// Writes what a bench has measured; says where.
fn write(name: &str, figures: &Map<String, Value>) -> anyhow::Result<PathBuf> {
    let folder = tools::root().join("target/bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    let text = format!("{}\n", serde_json::to_string_pretty(figures)?);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
