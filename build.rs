//! Tells the crate which CPython it is built for (`cfg(Py_3_14)`, `cfg(Py_GIL_DISABLED)`), and
//! whether it is optimized for a profile of what runs (`cfg(profile_guided)`).

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rustc-check-cfg=cfg(profile_guided)");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if flags.contains("profile-use") {
        println!("cargo:rustc-cfg=profile_guided");
    }
}
