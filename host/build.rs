//! Reads from libx264's header how its structures lie in memory and which of its builds they belong to. Nothing of the
//! library is linked: the host loads it when it opens an encoder, and only that build.

use std::error::Error;
use std::path::PathBuf;

use bindgen::MacroTypeVariation;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let header = "#include <stdint.h>\n#include <x264.h>\n";
    let layout = bindgen::builder()
        .header_contents("layout.h", header)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .allowlist_type("x264_(param|picture|nal)_t")
        .allowlist_var("X264_(BUILD|CSP_I420|KEYINT_MAX_INFINITE|LOG_ERROR|RC_ABR)")
        .allowlist_var("X264_(TYPE_AUTO|TYPE_IDR|WEIGHTP_NONE)")
        .default_macro_constant_type(MacroTypeVariation::Signed)
        .prepend_enum_name(false)
        .derive_debug(false)
        .generate_comments(false)
        .generate()
        .map_err(|error| format!("x264.h cannot be read (apt install libx264-dev): {error}"))?;
    let folder = std::env::var_os("OUT_DIR").ok_or("cargo says no OUT_DIR")?;
    layout.write_to_file(PathBuf::from(folder).join("x264.rs"))?;
    Ok(())
}
