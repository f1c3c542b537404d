//! Films that are played, sought in and looked through while they are on their way.
//!
//! Nothing is filled in, so what has moved is what somebody asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::Program;
use super::relay::{Manner, Relay};
use super::stage::{Mounted, Seed, Stage};

/// What a seed gives a second: more than the films need to be played, and not all at once.
const RATE: &str = "6MiB/s";

/// Containers, and how a film is put into each.
const FILMS: [(&str, &[&str]); 3] = [
    // Index at the end, picture and sound by turns.
    ("film.mp4", &[]),
    // Sought in by its cues, at the end too.
    ("film.mkv", &[]),
    // One fragment: all of the picture, then all of the sound.
    ("film.mov", &["-movflags", "empty_moov", "-frag_duration", "600000000", "-c:a", "pcm_s16le"]),
];

/// Twenty seconds of film, 3 MB, that are seen so many times.
struct Reel(PathBuf);

impl Reel {
    fn new(stage: &Stage) -> Self {
        let reel = stage.path("reel.mkv");
        let mut make = Command::new("ffmpeg");
        make.args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360:rate=25:duration=20",
        ]);
        make.args(["-f", "lavfi", "-i", "sine=frequency=440:duration=20"]);
        make.args(["-c:v", "mpeg4", "-b:v", "1200k", "-g", "50", "-c:a", "aac"]).arg(&reel);
        Program::done(&mut make);
        Self(reel)
    }

    /// A film that shows it `times`, at this path.
    fn film(&self, path: PathBuf, times: u32, how: &[&str]) -> PathBuf {
        let mut make = Command::new("ffmpeg");
        make.args(["-v", "error", "-stream_loop", &(times - 1).to_string(), "-i"]).arg(&self.0);
        Program::done(make.args(["-c", "copy"]).args(how).arg(&path));
        path
    }

    /// The same in each container.
    fn films(stage: &Stage, times: u32) -> [PathBuf; 3] {
        let reel = Self::new(stage);
        FILMS.map(|(name, how)| reel.film(stage.path(name), times, how))
    }
}

/// Plays by the stream's own clock, as fast as it comes; it must end well and find no fault.
#[track_caller]
fn mpv(what: &str) {
    let mut mpv = Command::new("mpv");
    mpv.args(["--no-config", "--vo=null", "--ao=null", "--untimed", "--ao-null-untimed"]);
    mpv.args(["--term-status-msg=", "--msg-level=all=warn,cplayer=info"]).arg(what);
    let said = Program::done(&mut mpv);
    assert!(said.ends_with("Exiting... (End of file)"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with('[')), "a module complains: {said}");
}

/// What ffmpeg says when it decodes a part of the film, or all of it.
#[track_caller]
fn decode(film: &Path, part: &[&str], output: &[&str]) -> String {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-xerror"]).args(part).arg("-i").arg(film).args(output);
    Program::done(&mut command)
}

/// Streams and times, as ffprobe tells them.
#[track_caller]
fn probe(film: &Path) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "stream=codec_name:format=duration"]);
    Program::done(command.args(["-of", "csv"]).arg(film))
}

/// A mount of the film that is not here yet, and its size.
fn streamed(stage: &Stage, film: &Path) -> (Mounted, u64, Seed) {
    let torrent = stage.torrent(film, &["--force", "--piece-size", "64KiB"]);
    let seed = stage.seed_with(&torrent, film, &["--max-up", RATE]);
    let _ = fs::remove_dir_all(stage.path("cache"));
    let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
    assert_eq!(mounted.here(), 0);
    (mounted, fs::metadata(film).unwrap().len(), seed)
}

#[test]
fn films_are_played_from_the_first_frame_to_the_last() {
    let stage = Stage::new();
    for film in Reel::films(&stage, 2) {
        let name = film.file_name().unwrap();
        let (mounted, size, _seed) = streamed(&stage, &film);
        mpv(mounted.path(name).to_str().unwrap());
        assert_eq!(mounted.here(), size, "{film:?} was played, and not all of it read");
        mounted.unmount();
        let (mounted, _, _seed) = streamed(&stage, &film);
        let through = mounted.path(name);
        assert_eq!(probe(&through), probe(&film));
        assert_eq!(decode(&through, &[], &["-f", "null", "-"]), "");
        mounted.unmount();
    }
}

#[test]
fn a_player_that_seeks_moves_little_beside_what_it_shows() {
    let stage = Stage::new();
    for film in Reel::films(&stage, 6) {
        let name = film.file_name().unwrap();
        let (mounted, size, _seed) = streamed(&stage, &film);
        let through = mounted.path(name);
        // One open file, shown at three places: forward, back and forward.
        let path = through.to_str().unwrap();
        mpv(&format!("edl://{path},80,2;{path},10,2;{path},100,2"));
        let shown = mounted.here();
        assert!(shown < size / 2, "{shown} of {size} bytes for 6 of 120 seconds of {film:?}");
        for second in ["50", "20"] {
            let frames =
                |film: &Path| decode(film, &["-ss", second], &["-t", "1", "-f", "framemd5", "-"]);
            assert_eq!(frames(&through), frames(&film), "{film:?} at {second} s");
        }
        let all = mounted.here();
        assert!(all < size * 3 / 4, "{all} of {size} bytes for 8 of 120 seconds of {film:?}");
        mounted.unmount();
    }
}

#[test]
fn a_folder_of_films_is_looked_through_for_a_few_pieces_each() {
    const FILMS: u64 = 50;
    const PIECE: u64 = 256 * 1024;
    let stage = Stage::new();
    let film = Reel::new(&stage).film(stage.path("film.mp4"), 1, &[]);
    let folder = stage.dir("folder");
    for nth in 0..FILMS {
        fs::copy(&film, folder.join(format!("{nth:02}.mp4"))).unwrap();
    }
    assert!(fs::metadata(&film).unwrap().len() > 12 * PIECE);
    let torrent = stage.torrent(&folder, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &folder);
    // Each looks at the head, and at the tail or a place in the middle; the kernel reads on a little, and the films'
    // first and last pieces reach into others.
    let table = [
        ("file -b -P bytes=65536 \"$0\"", 2),
        ("ffprobe -v error \"$0\"", 3),
        ("{ head -c 65536 \"$0\"; tail -c 65536 \"$0\"; }", 3),
        ("ffmpeg -v error -ss 2 -i \"$0\" -frames:v 1 -f framemd5 -", 6),
    ];
    for (program, pieces) in table {
        let relay = Relay::before(seed.addr, Manner::Honest);
        let _ = fs::remove_dir_all(stage.path("cache"));
        let mounted = stage.mount(&torrent, &[relay.addr], &["--no-fill"]);
        for nth in 0..FILMS {
            let film = mounted.path(format!("folder/{nth:02}.mp4"));
            let script = format!("set -e; {program} >/dev/null");
            Program::done(Command::new("sh").args(["-c", &script]).arg(film));
        }
        let moved = relay.payload();
        assert!(moved <= FILMS * pieces * PIECE, "{program}: {} bytes each", moved / FILMS);
        eprintln!("{program}: {} bytes each", moved / FILMS);
        mounted.unmount();
    }
}
