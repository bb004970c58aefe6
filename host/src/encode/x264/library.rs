//! libx264 itself, behind an interface that is safe to use.
//!
//! The library is loaded when an encoder is opened and left when that is dropped, so that a host that streams nothing
//! holds nothing of it, and a machine without it still has a host. The structures that it shares with its callers change
//! from build to build; `build.rs` reads them from the header, whose build is part of the library's file name and of the
//! name of the function that opens an encoder, so no other build can be met by accident. What is here is what its header
//! promises and no more: settings go in once, then one picture at a time.
//!
//! Deliberately absent: any choice. What the settings are is said by [`super`].

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use libloading::Library;

use layout::{x264_nal_t, x264_param_t, x264_picture_t, x264_t};

/// What is read from the library's header.
#[expect(
    non_camel_case_types,
    unreachable_pub,
    dead_code,
    clippy::allow_attributes_without_reason,
    reason = "written by bindgen with the names of the header"
)]
mod layout {
    include!(concat!(env!("OUT_DIR"), "/x264.rs"));
}

/// The one build of the library that fits, which Debian's package is named after.
pub(super) const BUILD: i32 = layout::X264_BUILD;

/// What an encoder is opened with; what is not here stays as the preset and [`Coder::open`] have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// What the settings begin with, of those that [`Preset`] names.
    pub(super) preset: Preset,
    /// In pixels, even.
    pub(super) width: i32,
    /// In pixels, even.
    pub(super) height: i32,
    /// Pictures in a thousand seconds.
    pub(super) refresh_millihz: u32,
    /// Constant, in kbit/s.
    pub(super) bitrate_kbps: i32,
    /// What may be sent in advance of the rate, in kbit.
    pub(super) buffer_kbit: i32,
    /// Slices of a picture.
    pub(super) slices: i32,
    /// Threads that share a picture: one, or one for each slice.
    pub(super) threads: i32,
    /// Whether luma goes from 0 to 255.
    pub(super) full_range: bool,
    /// Primaries, transfer and matrix, as ITU-T H.264 tables E-3 to E-5 number them.
    pub(super) colour: [i32; 3],
}

/// Sets of settings that the library has a name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Ultrafast,
    Superfast,
}

/// A picture in luma and chroma of half its width and height, each plane with the bytes from row to row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes<'a> {
    pub(super) data: [&'a [u8]; 3],
    pub(super) strides: [usize; 3],
}

/// Why there is no encoder.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The library is not on this machine.
    #[error("libx264 {BUILD} cannot be loaded: {0}")]
    Library(#[from] libloading::Error),
    /// It does not take these settings. Its words go to standard error.
    #[error("libx264 refused the settings")]
    Settings,
}

/// Why a picture was not coded.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodeError {
    /// The planes are not of the size that was set.
    #[error("the planes are smaller than the picture")]
    Planes,
    /// The library failed. Its words go to standard error.
    #[error("libx264 could not code the picture")]
    Library,
}

/// An open encoder. It works in the thread that calls it and in as many more as were set.
pub(super) struct Coder {
    encoder: NonNull<x264_t>,
    functions: Functions,
    width: usize,
    height: usize,
    /// Pictures given so far, which is the time of the next one.
    given: i64,
    /// Left last of all, when nothing of it runs any more.
    _library: Library,
}

// SAFETY: the encoder belongs to this value alone and is bound to no thread; it is used through `&mut` only.
unsafe impl Send for Coder {}

impl Coder {
    /// Loads the library and opens an encoder that keeps no picture back.
    pub(super) fn open(settings: &Settings) -> Result<Self, OpenError> {
        let size = |pixels: i32| usize::try_from(pixels).map_err(|_| OpenError::Settings);
        let (width, height) = (size(settings.width)?, size(settings.height)?);
        let library = load(BUILD)?;
        let functions = Functions::find(&library)?;
        let mut parameters = functions.parameters(settings)?;
        // SAFETY: the parameters are complete, their pointers are those of the library, and it copies what it keeps.
        let encoder = unsafe { (functions.open)(&raw mut parameters) };
        Ok(Self {
            encoder: NonNull::new(encoder).ok_or(OpenError::Settings)?,
            functions,
            width,
            height,
            given: 0,
            _library: library,
        })
    }

    /// Codes a picture and returns its NAL units with start codes, or nothing if the encoder kept it.
    pub(super) fn code(
        &mut self,
        planes: &Planes<'_>,
        idr: bool,
    ) -> Result<Option<&[u8]>, CodeError> {
        let mut picture = self.picture(planes)?;
        picture.i_type = if idr { layout::X264_TYPE_IDR } else { layout::X264_TYPE_AUTO };
        picture.i_pts = self.given;
        let mut units: *mut x264_nal_t = ptr::null_mut();
        let mut count: c_int = 0;
        let mut out = MaybeUninit::<x264_picture_t>::zeroed();
        // SAFETY: the encoder is open. The planes cover the picture, as `picture` has checked, and are read before this
        // returns; the header promises to write none of them. The rest are places that live here.
        let bytes = unsafe {
            (self.functions.encode)(
                self.encoder.as_ptr(),
                &raw mut units,
                &raw mut count,
                &raw mut picture,
                out.as_mut_ptr(),
            )
        };
        let bytes = usize::try_from(bytes).map_err(|_| CodeError::Library)?;
        // SAFETY: a structure of numbers and pointers, for which zeros, which it began with, are values too.
        let out = unsafe { out.assume_init() };
        // The coded picture of an earlier one means that this one is still inside.
        if bytes == 0 || count < 1 || units.is_null() || out.i_pts != self.given {
            return Ok(None);
        }
        self.given += 1;
        // SAFETY: there is at least one unit. The payloads of all of them lie one behind the other, `bytes` in all, and
        // stay until the encoder is used again or closed, for which the result must be gone.
        Ok(Some(unsafe { std::slice::from_raw_parts((*units).p_payload, bytes) }))
    }

    /// What describes a picture to the library, after a look at whether the planes hold all of it.
    fn picture(&self, planes: &Planes<'_>) -> Result<x264_picture_t, CodeError> {
        let chroma = (self.width.div_ceil(2), self.height.div_ceil(2));
        let sizes = [(self.width, self.height), chroma, chroma];
        let mut picture = MaybeUninit::<x264_picture_t>::uninit();
        // SAFETY: the function fills all of the structure.
        let mut picture = unsafe {
            (self.functions.picture_init)(picture.as_mut_ptr());
            picture.assume_init()
        };
        picture.img.i_csp = layout::X264_CSP_I420;
        picture.img.i_plane = 3;
        for (index, (width, height)) in sizes.into_iter().enumerate() {
            let (data, stride) = (planes.data[index], planes.strides[index]);
            let needed = stride.checked_mul(height).ok_or(CodeError::Planes)?;
            if stride < width || data.len() < needed {
                return Err(CodeError::Planes);
            }
            picture.img.i_stride[index] = c_int::try_from(stride).map_err(|_| CodeError::Planes)?;
            picture.img.plane[index] = data.as_ptr().cast_mut();
        }
        Ok(picture)
    }
}

impl Drop for Coder {
    fn drop(&mut self) {
        // SAFETY: the encoder is open, and nobody uses it after this.
        unsafe { (self.functions.close)(self.encoder.as_ptr()) };
    }
}

/// Loads one build of the library.
fn load(build: i32) -> Result<Library, libloading::Error> {
    // SAFETY: what runs when libx264 is loaded or left has no conditions.
    unsafe { Library::new(format!("libx264.so.{build}")) }
}

/// What is called of the library. They may be called as long as it is loaded.
#[derive(Clone, Copy)]
struct Functions {
    default_preset: unsafe extern "C" fn(*mut x264_param_t, *const c_char, *const c_char) -> c_int,
    apply_profile: unsafe extern "C" fn(*mut x264_param_t, *const c_char) -> c_int,
    picture_init: unsafe extern "C" fn(*mut x264_picture_t),
    open: unsafe extern "C" fn(*mut x264_param_t) -> *mut x264_t,
    encode: EncodeFunction,
    close: unsafe extern "C" fn(*mut x264_t),
}

type EncodeFunction = unsafe extern "C" fn(
    *mut x264_t,
    *mut *mut x264_nal_t,
    *mut c_int,
    *mut x264_picture_t,
    *mut x264_picture_t,
) -> c_int;

impl Functions {
    fn find(library: &Library) -> Result<Self, libloading::Error> {
        let open = format!("x264_encoder_open_{BUILD}");
        // SAFETY: the types are those that the header of this very build declares.
        unsafe {
            Ok(Self {
                default_preset: *library.get(b"x264_param_default_preset")?,
                apply_profile: *library.get(b"x264_param_apply_profile")?,
                picture_init: *library.get(b"x264_picture_init")?,
                open: *library.get(open.as_bytes())?,
                encode: *library.get(b"x264_encoder_encode")?,
                close: *library.get(b"x264_encoder_close")?,
            })
        }
    }

    /// The settings in the library's words.
    fn parameters(&self, settings: &Settings) -> Result<x264_param_t, OpenError> {
        let mut parameters = MaybeUninit::<x264_param_t>::uninit();
        let (preset, tune) = (settings.preset.name().as_ptr(), c"zerolatency".as_ptr());
        // SAFETY: the function begins with clearing all of the structure, and then sets it; the texts end with zero.
        let (taken, mut parameters) = unsafe {
            let taken = (self.default_preset)(parameters.as_mut_ptr(), preset, tune);
            (taken, parameters.assume_init())
        };
        settings.apply(&mut parameters);
        // SAFETY: the parameters are complete, and the text ends with zero.
        let fits = unsafe { (self.apply_profile)(&raw mut parameters, c"high".as_ptr()) };
        if taken < 0 || fits < 0 {
            return Err(OpenError::Settings);
        }
        Ok(parameters)
    }
}

impl Settings {
    fn apply(&self, to: &mut x264_param_t) {
        // Its notes on settings and processor features are not ours to print.
        to.i_log_level = layout::X264_LOG_ERROR;
        to.i_csp = layout::X264_CSP_I420;
        to.i_width = self.width;
        to.i_height = self.height;
        // Time counts pictures, so that rate control gives every picture the same share however it was captured.
        to.i_fps_num = self.refresh_millihz;
        to.i_fps_den = 1000;
        to.i_timebase_num = 1000;
        to.i_timebase_den = self.refresh_millihz;
        to.i_threads = self.threads;
        to.b_sliced_threads = 1;
        to.i_slice_count = self.slices;
        to.rc.i_rc_method = layout::X264_RC_ABR;
        to.rc.i_bitrate = self.bitrate_kbps;
        to.rc.i_vbv_max_bitrate = self.bitrate_kbps;
        to.rc.i_vbv_buffer_size = self.buffer_kbit;
        // IDR pictures only when asked for, each with its parameter sets.
        to.i_keyint_max = layout::X264_KEYINT_MAX_INFINITE;
        to.i_scenecut_threshold = 0;
        to.b_repeat_headers = 1;
        to.b_annexb = 1;
        to.b_aud = 0;
        // One reference serves clients with and without a limit: the presets used here look at no second one anyway.
        to.i_frame_reference = 1;
        to.analyse.i_weighted_pred = layout::X264_WEIGHTP_NONE;
        // The 8x8 transform costs nothing measurable and makes it High profile, which is what clients that patch the
        // parameter sets expect. CABAC stays as the preset has it: in `ultrafast` it would cost 40 % more time.
        to.analyse.b_transform_8x8 = 1;
        let [primaries, transfer, matrix] = self.colour;
        to.vui.b_fullrange = self.full_range.into();
        to.vui.i_colorprim = primaries;
        to.vui.i_transfer = transfer;
        to.vui.i_colmatrix = matrix;
    }
}

impl Preset {
    fn name(self) -> &'static CStr {
        match self {
            Self::Ultrafast => c"ultrafast",
            Self::Superfast => c"superfast",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            preset: Preset::Ultrafast,
            width: 64,
            height: 48,
            refresh_millihz: 60_000,
            bitrate_kbps: 1_000,
            buffer_kbit: 17,
            slices: 1,
            threads: 1,
            full_range: false,
            colour: [1, 1, 1],
        }
    }

    #[test]
    fn planes_that_do_not_hold_the_picture_are_never_read() {
        let mut coder = Coder::open(&settings()).unwrap();
        let bytes = vec![128; 64 * 48];
        let mut code = |lengths: [usize; 3], strides| {
            let planes = Planes { data: lengths.map(|length| &bytes[..length]), strides };
            coder.code(&planes, false).map(|coded| coded.is_some())
        };
        let whole = [64 * 48, 32 * 24, 32 * 24];
        assert!(matches!(code(whole, [64, 32, 32]), Ok(true)));
        for plane in 0..3 {
            let mut short = whole;
            short[plane] -= 1;
            assert!(matches!(code(short, [64, 32, 32]), Err(CodeError::Planes)));
            let mut narrow = [64, 32, 32];
            narrow[plane] -= 1;
            assert!(matches!(code(whole, narrow), Err(CodeError::Planes)));
            let mut endless = [64, 32, 32];
            endless[plane] = usize::MAX;
            assert!(matches!(code(whole, endless), Err(CodeError::Planes)));
        }
        assert!(matches!(code(whole, [64, 32, 32]), Ok(true)), "what was refused left no trace");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (width, height) in [(0, 48), (-64, 48), (64, i32::MIN), (63, 48), (64, 1 << 20)] {
            let refused = Coder::open(&Settings { width, height, ..settings() });
            assert!(matches!(refused, Err(OpenError::Settings)), "{width}x{height}");
        }
    }

    #[test]
    fn an_encoder_may_be_used_and_closed_in_another_thread() {
        let mut coder = Coder::open(&Settings { slices: 2, threads: 2, ..settings() }).unwrap();
        let used = std::thread::spawn(move || {
            let bytes = vec![128; 64 * 48];
            let data = [&bytes[..], &bytes[..32 * 24], &bytes[..32 * 24]];
            let planes = Planes { data, strides: [64, 32, 32] };
            coder.code(&planes, true).unwrap().is_some()
        });
        assert!(used.join().unwrap());
    }

    #[test]
    fn a_build_that_is_not_there_is_an_error_with_its_name() {
        let error = OpenError::from(load(1).unwrap_err());
        assert!(error.to_string().contains("libx264.so.1:"), "{error}");
    }
}
