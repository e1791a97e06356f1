//! Extracts the BTF that the agent needs (`btf_extract FROM TO`). FROM is a vmlinux, or its BTF
//! alone. Run by `cargo xtask btf`.

use std::{env, fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use conntrace::capture::btf_needs;
use conntrace_btf::Btf;
use object::{Object as _, ObjectSection as _};

/// Magic number of an ELF file.
const ELF: &[u8] = b"\x7fELF";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("btf_extract: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [from, to] = &args[..] else {
        bail!("usage: btf_extract FROM TO");
    };
    let file = fs::read(from).with_context(|| format!("cannot read {from}"))?;
    let btf = Btf::parse(btf_of(&file).context(from.clone())?)
        .with_context(|| format!("cannot parse the BTF of {from}"))?;
    let needs = btf_needs(&btf)
        .with_context(|| format!("tracing would not start on the kernel of {from}"))?;
    let extract =
        (btf.extract(&needs)).with_context(|| format!("cannot extract the BTF of {from}"))?;
    fs::write(to, &extract).with_context(|| format!("cannot write {to}"))?;
    eprintln!("{to}: {} bytes", extract.len());
    Ok(())
}

fn btf_of(file: &[u8]) -> Result<&[u8]> {
    if !file.starts_with(ELF) {
        return Ok(file);
    }
    let elf = object::File::parse(file)?;
    let section = elf
        .section_by_name(".BTF")
        .context("it has no section .BTF; use a kernel built with CONFIG_DEBUG_INFO_BTF=y")?;
    Ok(section.data()?)
}
