//! `sqlx::migrate!` watches the files that it found, not the folders: a new file has to be noticed here.

fn main() {
    for folder in ["indexer", "matcher", "agent"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
