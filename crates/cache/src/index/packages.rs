//! What layers tell of packages. Who reads them writes it in a form of its own; it goes with the layer.

use rbuild_solver::LayerId;
use rusqlite::{OptionalExtension as _, params};

use super::LayerFacts;
use super::database::{Index, IndexError};
use super::layer_facts::add_layer;

impl Index {
    /// What `reader` has found in a layer, if it has looked.
    pub fn layer_packages(&self, id: &LayerId, reader: &str) -> Result<Option<String>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT packages FROM layer_packages WHERE layer = ?1 AND reader = ?2",
                )?
                .query_row(params![id.as_bytes(), reader], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps what `reader` has found in a layer, in place of what another one had.
    pub fn put_layer_packages(
        &self,
        id: &LayerId,
        reader: &str,
        packages: &str,
    ) -> Result<(), IndexError> {
        self.write(|connection| {
            add_layer(connection, id, &LayerFacts::default())?;
            connection
                .prepare_cached(
                    "INSERT INTO layer_packages (layer, reader, packages) VALUES (?1, ?2, ?3)
                     ON CONFLICT (layer) DO UPDATE SET reader = ?2, packages = ?3",
                )?
                .execute(params![id.as_bytes(), reader, packages])
                .map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_with_their_layer() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("locks")).unwrap();
        let (index, _) = Index::open(folder.path()).unwrap();
        let layer = LayerId::derived("a", &[]);
        assert_eq!(index.layer_packages(&layer, "r.1").unwrap(), None);
        index.put_layer_packages(&layer, "r.1", "[]").unwrap();
        assert_eq!(index.layer_packages(&layer, "r.1").unwrap().as_deref(), Some("[]"));
        index.put_layer_packages(&layer, "r.2", "[1]").unwrap();
        assert_eq!(index.layer_packages(&layer, "r.1").unwrap(), None);
        assert_eq!(index.layer_packages(&layer, "r.2").unwrap().as_deref(), Some("[1]"));
        index.delete_layers(&[layer]).unwrap();
        assert_eq!(index.layer_packages(&layer, "r.2").unwrap(), None);
    }
}
