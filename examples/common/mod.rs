//! What the examples share: flags, the embedded demo, progress bars, errors in words.
#![allow(dead_code)] // Each example compiles this module for itself and uses a part of it.

pub mod census_folder;
pub mod engine;
pub mod out;
pub mod preflight;
pub mod random_sae;

use clap::{Args, ValueEnum};
use feature_analysis::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use out::print_note;
use saescope::activation_store::{ActivationStore, DocumentOptions, Documents, Error, StoreOptions, StoreReport};
use saescope::feature_analysis;
use saescope::model_hooks::{
    AddBos, ChatTemplate, HookSelector, LanguageModel, LoadOptions, Processing, ProcessingSteps, Site, load,
};
use saescope::pretrained::{Entry, Hub, Registry};
use saescope::sae_core::{self, Dictionary, SparseCoder, formats};
use saescope::tensor_kernels::Engine;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Any error, for examples only: the libraries' own are typed.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo");

/// Which model, SAE and text.
#[derive(Args, Clone, Debug)]
pub struct Source {
    /// Hugging Face folder or GGUF file [default: the embedded demo]
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub model: Option<PathBuf>,
    /// SAE or transcoder: a SAELens folder or the files of another published format, RELEASE:SAE_ID of the table of published SAEs, or
    /// random:D_SAE@HOOK for one of random weights [default: the embedded demo's]
    #[arg(long, value_name = "DIR|FILE|RELEASE:SAE_ID")]
    pub sae: Option<String>,
    /// How the SAE's files are read.
    #[command(flatten)]
    pub sae_flags: SaeFlags,
    /// Files: .txt, .jsonl, .json (also .gz, .zst), .parquet or .arrow; globs; folders, for all such files in them [default: the embedded demo's held-out text]
    #[arg(long, value_name = "FILES", num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// The field (JSON) or column (Parquet, Arrow) with the documents: text, or lists of token ids; data.text for a field inside of data
    /// [default: the first of tokens, input_ids, text, problem, conversation, conversations, messages]
    #[arg(long, value_name = "NAME")]
    pub text_field: Option<String>,
    /// A chat template (Jinja, or JSON with a chat_template), which makes text of conversations [default: the one beside the model's tokenizer]
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Which of several chat templates: tool_use, rag, or another name [default: default]
    #[arg(long, value_name = "NAME")]
    pub chat_template_name: Option<String>,
    /// The date that chat templates write [default: none is given to them]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub chat_date: Option<String>,
    /// Takes every document for a conversation: fields conversation, conversations, messages, or text as a user's message
    #[arg(long)]
    pub use_chat_formatting: bool,
    /// Weight processing [default: what the SAE's metadata says it was trained on, else TransformerLens' own default]
    #[arg(long)]
    pub processing: Option<ProcessingFlag>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// How an SAE's files are read.
#[derive(Args, Clone, Debug, Default)]
pub struct SaeFlags {
    /// Keys of the SAE's configuration that are unknown and known to be without effect
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub ignore_keys: Vec<String>,
    /// The factor that the SAE's training multiplied activations by, in place of the files' own; 1: activations as they are
    #[arg(long, value_name = "FACTOR")]
    pub norm_factor: Option<f32>,
}

/// Names of weight processing.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProcessingFlag {
    /// The file's weights as they are.
    None,
    /// TransformerLens' default: fold_ln, center writing weights, center unembed, fold value biases.
    Tl,
}

/// A model, an SAE and where their text is.
pub struct Setup {
    /// The model.
    pub model: LanguageModel,
    /// The SAE.
    pub sae: Dictionary,
    /// What the table of published SAEs says of it, if it lists it.
    pub entry: Option<Entry>,
    /// What the SAE is called in outputs.
    pub sae_name: String,
    /// The text's files.
    pub text: Vec<PathBuf>,
    /// How they are read.
    pub documents: DocumentOptions,
    chat: Chat,
}

/// Where a chat template comes from.
struct Chat {
    model: PathBuf,
    file: Option<PathBuf>,
    name: Option<String>,
    date: Option<String>,
    /// Read once: a pipe has no second reading.
    found: OnceCell<Option<ChatTemplate>>,
}

impl Source {
    /// Loads model and SAE for the default engine.
    pub fn open(&self) -> Outcome<Setup> {
        self.open_on(Engine::default())
    }

    /// How the text's files are read.
    pub fn documents(&self) -> DocumentOptions {
        let options = DocumentOptions::default().use_chat_formatting(self.use_chat_formatting);
        match &self.text_field {
            Some(name) => options.field(name),
            None => options,
        }
    }

    /// Loads model and SAE for this engine.
    pub fn open_on(&self, engine: Engine) -> Outcome<Setup> {
        let demo = Path::new(DEMO);
        let sae_flag = match (&self.sae, &self.model) {
            (Some(flag), _) => flag.clone(),
            (None, None) => demo.join("sae").display().to_string(),
            (None, Some(model)) => return Err(no_sae(model).into()),
        };
        let model_path = self.model.clone().unwrap_or_else(|| demo.join("lm"));
        let random = random_sae::Spec::parse(&sae_flag)?;
        let (loaded, entry) = match &random {
            Some(_) => (None, None),
            None => load_sae(&sae_flag, engine, &self.sae_flags).map(|(sae, entry)| (Some(sae), entry))?,
        };
        let processing = self.processing.map_or_else(|| trained_on(loaded.as_ref()), ProcessingFlag::steps);
        let model = load_model(&model_path, &LoadOptions::new(processing).engine(engine))?;
        let sae = match (loaded, &random) {
            (Some(sae), _) => sae,
            (None, Some(spec)) => spec.build(&model, engine, self.seed)?.into(),
            (None, None) => unreachable!("an SAE that is not random was loaded"),
        };
        let sae_name =
            if random.is_some() { format!("random weights, {sae_flag}") } else { short(Path::new(&sae_flag)) };
        let text = if self.text.is_empty() { vec![demo.join("text.jsonl")] } else { self.text.clone() };
        let chat = Chat {
            model: model_path,
            file: self.chat_template.clone(),
            name: self.chat_template_name.clone(),
            date: self.chat_date.clone(),
            found: OnceCell::new(),
        };
        Ok(Setup { model, sae, entry, sae_name, text, documents: self.documents(), chat })
    }
}

impl Setup {
    /// A store at the start of the text.
    pub fn store(&self) -> Outcome<ActivationStore> {
        self.store_with(StoreOptions::default())
    }

    /// The same with other options.
    pub fn store_with(&self, options: StoreOptions) -> Outcome<ActivationStore> {
        let documents = match Documents::open(&self.text, self.documents.clone()) {
            // Only where there are conversations is a template looked for.
            Err(Error::NoChatTemplate { path, field }) => match self.chat_template()? {
                Some(template) => Documents::open(&self.text, self.documents.clone().chat_template(template))?,
                None => {
                    let error = Error::NoChatTemplate { path, field };
                    return Err(format!("{error} (--chat-template FILE)").into());
                }
            },
            opened => opened?,
        };
        Ok(ActivationStore::from_sae(&self.model, &self.sae, documents, options)?)
    }

    /// Whether BOS goes before a prompt: as the SAE was trained; where its metadata do not say, if the tokenizer has one.
    pub fn bos(&self) -> AddBos {
        let has_bos = self.model.tokenizer().is_some_and(|tokenizer| tokenizer.bos().is_some());
        match self.sae.metadata().prepend_bos.unwrap_or(has_bos) {
            true => AddBos::Always,
            false => AddBos::Never,
        }
    }

    fn chat_template(&self) -> Outcome<Option<ChatTemplate>> {
        if let Some(found) = self.chat.found.get() {
            return Ok(found.clone());
        }
        let tokenizer = self.model.try_tokenizer()?;
        let name = self.chat.name.as_deref().unwrap_or("default");
        let template = match &self.chat.file {
            Some(file) => Some(ChatTemplate::open_named(file, name, tokenizer)?),
            None => ChatTemplate::find_named(&self.chat.model, name, tokenizer)?,
        };
        let template = match (template, &self.chat.date) {
            (Some(template), Some(date)) => Some(template.date(date)?),
            (template, _) => template,
        };
        Ok(self.chat.found.get_or_init(|| template).clone())
    }

    /// The SAE in words.
    pub fn describe_sae(&self) -> String {
        let hook = self.sae.metadata().hook_name.as_deref().unwrap_or("no hook named");
        let kind = self.sae.architecture();
        let notes: String = self.sae.metadata().notes.iter().map(|note| format!("; {note}")).collect();
        format!("{}: {kind}, {} -> {} at {hook}{notes}", self.sae_name, self.sae.d_in(), self.sae.d_sae())
    }

    /// The model in words.
    pub fn describe_model(&self) -> String {
        let shape = self.model.shape();
        let steps = processing_name(self.model.processing());
        format!(
            "{}: {} layers, d_model {}, {} tokens, weights processed: {steps}",
            self.model.name(),
            shape.n_layers,
            shape.d_model,
            shape.d_vocab
        )
    }

    /// The files in words.
    pub fn describe_text(&self) -> String {
        let mut words = self.text.iter().map(|path| short(path)).collect::<Vec<_>>().join(", ");
        if let Some(field) = &self.documents.field {
            words.push_str(&format!(", field {field}"));
        }
        if self.documents.use_chat_formatting {
            words.push_str(", as conversations");
        }
        words
    }
}

impl ProcessingFlag {
    fn steps(self) -> ProcessingSteps {
        match self {
            Self::None => Processing::None.into(),
            Self::Tl => Processing::TransformerLens.into(),
        }
    }
}

/// A model. Load warnings go to standard error.
pub fn load_model(path: &Path, options: &LoadOptions) -> Outcome<LanguageModel> {
    let model = load(path, options)?;
    print_warnings(&model);
    Ok(model)
}

/// Prints load warnings on standard error.
pub fn print_warnings(model: &LanguageModel) {
    model.warnings().iter().for_each(|warning| print_note(format_args!("warning: {warning}")));
}

/// An SAE of any format for this engine, by path or by name, and the table's entry of it; prints what was folded, ignored or left out.
pub fn load_sae(flag: &str, engine: Engine, flags: &SaeFlags) -> Outcome<(Dictionary, Option<Entry>)> {
    let mut fetched = match of_a_release(flag) {
        Some((release, sae_id)) => Some(Hub::from_env()?.fetch_sae(release, sae_id)?),
        // As a path, whatever releases are called.
        None if Path::new(flag).is_relative() && Path::new(flag).exists() => {
            Some(Hub::new().fetch_sae(&format!("./{flag}"), "")?)
        }
        None if Path::new(flag).exists() => Some(Hub::new().fetch_sae(flag, "")?),
        None => None,
    };
    let mut options = fetched.as_mut().map(|fetched| std::mem::take(&mut fetched.options)).unwrap_or_default();
    options.load = sae_core::LoadOptions { engine, ignore_keys: flags.ignore_keys.clone() };
    options.norm_scaling_factor = flags.norm_factor.or(options.norm_scaling_factor);
    let path = fetched.as_ref().map_or(Path::new(flag), |fetched| &fetched.path);
    let sae = formats::open(path, &options)?;
    for note in &sae.metadata().notes {
        print_note(format_args!("note: {note}"));
    }
    Ok((sae, fetched.and_then(|fetched| fetched.entry)))
}

/// `RELEASE:SAE_ID` of the table of published SAEs.
fn of_a_release(flag: &str) -> Option<(&str, &str)> {
    let (release, sae_id) = flag.split_once(':').filter(|_| !Path::new(flag).exists())?;
    Registry::built_in().release(release).is_ok().then_some((release, sae_id))
}

/// The weights that an SAE was trained on: TransformerLens' default, changed by `model_from_pretrained_kwargs`.
fn trained_on(sae: Option<&Dictionary>) -> ProcessingSteps {
    let mut steps: ProcessingSteps = Processing::TransformerLens.into();
    let Some(sae) = sae else { return steps };
    let said = |key: &str, default: bool| {
        sae.metadata().model_from_pretrained_kwargs.get(key).and_then(|v| v.as_bool()).unwrap_or(default)
    };
    steps.fold_ln = said("fold_ln", steps.fold_ln);
    steps.center_writing_weights = said("center_writing_weights", steps.center_writing_weights);
    steps.center_unembed = said("center_unembed", steps.center_unembed);
    steps.fold_value_biases = said("fold_value_biases", steps.fold_value_biases);
    steps
}

/// What a logit lens multiplies, with the weights between the hook point and the residual stream.
pub fn projection(at: HookSelector) -> String {
    let between = match at.point.site() {
        Some(Site::Z) => "W_O ",
        Some(Site::MlpPost | Site::MlpPre) => "W_out ",
        _ => "",
    };
    format!("rows of W_dec {between}W_U, W_dec at {at}")
}

/// `all of TransformerLens' steps`, `none`, or the list of steps.
pub fn processing_name(steps: ProcessingSteps) -> String {
    if steps == Processing::TransformerLens.into() {
        return "as TransformerLens does by default".into();
    }
    let names = [
        (steps.fold_ln, "fold_ln"),
        (steps.center_writing_weights, "center_writing_weights"),
        (steps.center_unembed, "center_unembed"),
        (steps.fold_value_biases, "fold_value_biases"),
    ];
    let on: Vec<_> = names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    if on.is_empty() { "not at all".into() } else { on.join(", ") }
}

fn no_sae(model: &Path) -> String {
    format!(
        "an SAE belongs to one model and hook point, and none was given for {}\n\
         give --sae DIR (a SAELens folder), or --sae random:D_SAE@HOOK for one of random weights that shows the mechanics, such as\n\
         --sae random:2048@blocks.1.hook_resid_pre",
        model.display()
    )
}

/// What of the text was left out or cut, in words; nothing where all of it was read as it is.
pub fn left_out(report: &StoreReport) -> Option<String> {
    let (documents, packing) = (&report.documents, &report.packing);
    let counts = [
        (documents.null_documents, "documents without a value left out"),
        (documents.refused_conversations, "conversations left out: not well-formed, or refused by the chat template"),
        (documents.empty_files, "files without documents left out"),
        (packing.skipped_documents, "documents too long for the tokenizer left out"),
        (packing.cut_documents, "documents too long for the tokenizer cut at whitespace"),
        (packing.forced_cuts, "cuts where tokens may have changed"),
    ];
    let said: Vec<String> = counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// The last two parts of a path: enough to know it by.
fn short(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|p| p.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

/// Which features to look at.
#[derive(Clone, Debug)]
pub enum Features {
    /// So many, drawn without repeats.
    Random(usize),
    /// These.
    List(Vec<u32>),
}

impl std::str::FromStr for Features {
    type Err = String;

    fn from_str(flag: &str) -> Result<Self, String> {
        let wrong = || format!("`{flag}` is neither random:COUNT nor a list of feature numbers such as 1,2,3");
        match flag.strip_prefix("random:") {
            Some(count) => Ok(Self::Random(count.parse().map_err(|_| wrong())?)),
            None => Ok(Self::List(
                flag.split(',').map(|f| f.trim().parse()).collect::<Result<_, _>>().map_err(|_| wrong())?,
            )),
        }
    }
}

impl Features {
    /// The numbers; a count above the SAE's width is cut to it.
    pub fn choose(&self, sae: &dyn SparseCoder, seed: u64) -> Outcome<Vec<u32>> {
        Ok(match self {
            Self::Random(count) => feature_analysis::random_features(sae.d_sae(), (*count).min(sae.d_sae()), seed)?,
            Self::List(list) => list.clone(),
        })
    }
}

/// A bar that says how many examples were found, and the callback that moves it.
pub fn bar(batches: u64) -> (ProgressBar, impl FnMut(Progress)) {
    let style = ProgressStyle::with_template("{msg}: {percent:>3}%|{bar:30}| {pos}/{len} [{elapsed}<{eta}, {per_sec}]");
    let bar = ProgressBar::new(batches).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let moved = bar.clone();
    (bar, move |progress: Progress| {
        moved.set_message(format!("Examples found: {}", progress.examples));
        moved.set_position(progress.batches_done);
    })
}

/// A bar over tokens, on standard error; a counter where their number is not known.
pub fn token_bar(tokens: Option<u64>) -> ProgressBar {
    let template = match tokens {
        Some(_) => "{percent:>3}%|{bar:30}| {human_pos} of {human_len} tokens [{elapsed}<{eta}, {per_sec}]",
        None => "{spinner} {human_pos} tokens [{elapsed}, {per_sec}]",
    };
    let bar = tokens.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A bar over rows of tokens, on standard error, with a word for what is being done.
pub fn row_bar(rows: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}: {percent:>3}%|{bar:30}| {pos}/{len} rows [{elapsed}<{eta}]");
    ProgressBar::new(rows).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prints an error and what caused it, in words.
pub fn exit(outcome: Outcome) -> ExitCode {
    // What was printed last is written last: a full disk behind standard output is known only now.
    let printed = || out::failure().map_or(Ok(()), |error| Err(format!("standard output: {error}").into()));
    let Err(error) = outcome.and_then(|()| printed()) else { return ExitCode::SUCCESS };
    let mut said = error.to_string();
    print_note(format_args!("error: {said}"));
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Many errors already end with the words of their cause.
        if !said.contains(&words) {
            print_note(format_args!("  caused by: {words}"));
        }
        (said, source) = (words, cause.source());
    }
    ExitCode::FAILURE
}
