//! `liotbchain chain export` and `chain import`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use liotbchain_core::{BlockHash, Height};
use liotbchain_node::{TransferError, Transferred, transfer};
use liotbchain_store::Store;
use serde::Serialize;

use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::opening::{no_chain, open_existing_store, open_store};
use crate::output::{not_written, print_json, say};
use crate::progress::{Progress, Unit};
use crate::settings::Settings;

/// The name that stands for standard input and output.
const STDIO: &str = "-";
const BUFFER_SIZE: usize = 1 << 20;

/// Writes the chain to a file, or to standard output.
///
/// # Errors
///
/// Where there is no chain, or the file exists and is not to be replaced, or cannot be written.
pub async fn export(settings: &Settings, out: &Path, force: bool, json: bool) -> Result<(), Failure> {
    let to_stdout = out == Path::new(STDIO);
    if to_stdout && json {
        return Err(Failure::new(Exit::Usage, "the export and the answer cannot both go to standard output")
            .with_hint("leave --json out, or name a file with --out"));
    }
    if !to_stdout && !force && out.symlink_metadata().is_ok() {
        return Err(Failure::failed(format!("{} exists and is left as it is", out.display()))
            .with_hint("name another file, or let --force replace it"));
    }
    let store = open_existing_store(settings).await?;
    let exported = match to_stdout {
        true => {
            let failed = |error: &io::Error| not_written(error);
            write_export(&store, settings, &mut BufWriter::with_capacity(BUFFER_SIZE, io::stdout()), failed)
                .await
        }
        false => export_to_file(&store, settings, out).await,
    };
    store.close().await;
    let transferred = exported?;
    if json {
        return print_json(&Moved::of(out, &transferred));
    }
    let to = if to_stdout { "standard output".into() } else { out.display().to_string() };
    say(format_args!("exported {} to {to}", in_words(&transferred)));
    Ok(())
}

/// Writes beside the file first: its name never stands for half a chain.
async fn export_to_file(
    store: &Arc<dyn Store>,
    settings: &Settings,
    out: &Path,
) -> Result<Transferred, Failure> {
    let mut unfinished = out.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let failed = |error: &io::Error| Failure::failed(format!("{} cannot be written: {error}", out.display()));
    let file = File::create(&unfinished).map_err(|error| failed(&error))?;
    let mut writer = BufWriter::with_capacity(BUFFER_SIZE, file);
    let exported = match write_export(store, settings, &mut writer, failed).await {
        Ok(transferred) => {
            let finish = || writer.get_ref().sync_all().and_then(|()| fs::rename(&unfinished, out));
            finish().map(|()| transferred).map_err(|error| failed(&error))
        }
        Err(failure) => Err(failure),
    };
    if exported.is_err() {
        // It is of no use, and it may be what fills the disk.
        let _ = fs::remove_file(&unfinished);
    }
    exported
}

async fn write_export(
    store: &Arc<dyn Store>,
    settings: &Settings,
    out: &mut (dyn Write + Send),
    failed: impl Fn(&io::Error) -> Failure,
) -> Result<Transferred, Failure> {
    let mut progress = Progress::new("exporting", Unit::Blocks);
    let exported =
        transfer::export(store, out, |it| progress.set(u64::from(it.height) + 1, u64::from(it.of) + 1));
    exported.await.map_err(|error| match error {
        TransferError::Store(error) => error.into(),
        TransferError::File(error) => failed(&error),
        TransferError::Empty => no_chain(settings),
        error => Failure::failed(error.to_string()),
    })
}

/// Checks an exported chain, every rule of it, and puts it into an empty store.
///
/// # Errors
///
/// With the exit code of an invalid chain, where it is one, and nothing is imported. Others where the file cannot be
/// read, or the store is not empty or in use.
pub async fn import(settings: &Settings, file: &Path, json: bool) -> Result<(), Failure> {
    if file == Path::new(STDIO) {
        return Err(Failure::new(
            Exit::Usage,
            "an import reads its file twice, and standard input can be read once",
        )
        .with_hint("write it to a file first: cat > chain.ndjson"));
    }
    let unreadable =
        |error: &io::Error| Failure::failed(format!("{} cannot be read: {error}", file.display()));
    let size = match File::open(file).and_then(|file| file.metadata()).map_err(|error| unreadable(&error))? {
        metadata if metadata.is_file() => metadata.len(),
        _ => {
            return Err(Failure::failed(format!("{} is no regular file", file.display()))
                .with_hint("an import reads its file twice: write it to a file first"));
        }
    };
    let data_dir = DataDir::take(&settings.data_dir)?;
    let holder = data_dir.holder()?;
    let store = open_store(settings).await?;
    let mut tasks = ["checking", "writing"].into_iter();
    let open = || {
        let progress = Progress::new(tasks.next().unwrap_or("reading"), Unit::Bytes);
        let counting = Counting { file: File::open(file)?, done: 0, size, progress };
        Ok(BufReader::with_capacity(BUFFER_SIZE, counting))
    };
    let imported = transfer::import(&store, &holder, open, |_| {}).await;
    store.close().await;
    let only_checked = tasks.len() > 0;
    let transferred = imported.map_err(|error| {
        let failure = match error {
            TransferError::Store(error) => return error.into(),
            TransferError::NotEmpty | TransferError::InUse => {
                let hint = "name an empty one with DATABASE_URL, such as --database-url sqlite:copy.db";
                return Failure::failed(format!("{}: {error}", settings.database.shown())).with_hint(hint);
            }
            TransferError::File(error) if error.kind() == ErrorKind::InvalidData => {
                Failure::new(Exit::ChainInvalid, format!("{} is not UTF-8 text", file.display()))
            }
            TransferError::File(error) => unreadable(&error),
            TransferError::Export(_) | TransferError::LineSize { .. } => {
                Failure::new(Exit::ChainInvalid, format!("{}: {error}", file.display()))
            }
            error => Failure::failed(format!("{}: {error}", file.display())),
        };
        match only_checked {
            true => failure.with_hint("nothing was imported"),
            false => {
                failure.with_hint("the file changed while it was imported: empty the store and try again")
            }
        }
    })?;
    if json {
        return print_json(&Moved::of(file, &transferred));
    }
    say(format_args!("imported {} into {}", in_words(&transferred), store.location()));
    Ok(())
}

/// A file that shows how far it has been read.
struct Counting {
    file: File,
    done: u64,
    size: u64,
    progress: Progress,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done += read as u64;
        self.progress.set(self.done, self.size);
        Ok(read)
    }
}

fn in_words(transferred: &Transferred) -> String {
    let Transferred { tip, height, transactions, .. } = transferred;
    format!("{} blocks with {transactions} transactions (tip {tip})", u64::from(*height) + 1)
}

/// What was moved, as a program reads it.
#[derive(Serialize)]
struct Moved {
    file: String,
    genesis: BlockHash,
    tip: BlockHash,
    height: Height,
    transactions: u64,
}

impl Moved {
    fn of(file: &Path, transferred: &Transferred) -> Self {
        let Transferred { genesis, tip, height, transactions } = *transferred;
        Self { file: file.display().to_string(), genesis, tip, height, transactions }
    }
}
