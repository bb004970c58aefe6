//! Encoders: pictures go in, and the first access unit has to be an IDR picture, the second one that builds on it.

use punktfunk_core::media::{Codec, ColourMatrix, ColourSpace, FrameKind, Mode, SourceIndex};

use super::Finding;
use crate::capture::{CapturedFrame, FramePool, PixelFormat};
use crate::clock;
use crate::encode::{EncodeError, EncodeSpec, EncoderBackend, PictureRequest};

/// Opens the encoder for each codec it names and lets it code two pictures.
pub(super) fn idr(backend: &dyn EncoderBackend) -> Finding {
    match backend.probe() {
        Ok(codecs) if codecs.is_empty() => {
            Finding::Unproven { reason: "it opens and names no codec that it encodes".to_owned() }
        }
        Ok(codecs) => {
            let coded: Result<Vec<String>, EncodeError> =
                codecs.iter().map(|codec| code(backend, *codec)).collect();
            match coded {
                Ok(coded) => Finding::works_with(coded.join("; ")),
                Err(error) => Finding::broken(&error),
            }
        }
        Err(ref error @ EncodeError::Unavailable { ref remedy, .. }) => {
            Finding::missing(error.to_string(), remedy)
        }
        Err(error) => Finding::broken(&error),
    }
}

fn code(backend: &dyn EncoderBackend, codec: Codec) -> Result<String, EncodeError> {
    let failed = |reason: String| EncodeError::Failed { encoder: backend.name(), reason };
    let mode = Mode::new(640, 360, 60_000).map_err(|error| failed(error.to_string()))?;
    let mut encoder = backend.open(&EncodeSpec {
        codec,
        mode,
        bitrate_kbps: 5_000,
        colour: ColourSpace { matrix: ColourMatrix::Bt709, full_range: false },
        slices: 1,
        max_reference_frames: 1,
        max_unit_bytes: 1 << 20,
    })?;
    let pool = FramePool::new(1);
    let mut sizes = [0; 2];
    for (index, wanted) in [FrameKind::Idr, FrameKind::Predicted].into_iter().enumerate() {
        let frame = picture(&pool, mode, index as u64);
        let unit = encoder.encode(&frame, PictureRequest::default())?;
        if unit.kind != wanted || unit.bytes.is_empty() {
            let (got, bytes) = (unit.kind, unit.bytes.len());
            let number = index + 1;
            return Err(failed(format!(
                "picture {number} became {bytes} bytes of {got:?}, not of {wanted:?}"
            )));
        }
        sizes[index] = unit.bytes.len();
        encoder.recycle(unit.bytes);
    }
    Ok(format!("{codec}: an IDR picture of {} bytes, then one of {} bytes", sizes[0], sizes[1]))
}

/// A picture that is no single colour, a little different for each number.
fn picture(pool: &FramePool, mode: Mode, number: u64) -> CapturedFrame {
    let stride = mode.width() as usize * 4;
    let mut pixels = pool.take(stride * mode.height() as usize);
    for (place, byte) in pixels.bytes_mut().iter_mut().enumerate() {
        *byte = (place / 4 + place / stride) as u8;
    }
    CapturedFrame {
        index: SourceIndex(number),
        captured_at: clock::now(),
        width: mode.width(),
        height: mode.height(),
        stride,
        format: PixelFormat::Bgrx,
        damage: Vec::new(),
        pixels,
    }
}

#[cfg(test)]
mod tests {
    use punktfunk_core::media::AccessUnit;

    use super::*;
    use crate::encode::Encoder;
    use crate::encode::x264::X264Backend;

    #[derive(Clone, Copy, PartialEq)]
    enum Fake {
        NotThere,
        Opens,
        NeverIdr,
        Fails,
        NoCodec,
    }

    impl EncoderBackend for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn probe(&self) -> Result<Vec<Codec>, EncodeError> {
            match self {
                Self::NotThere => Err(EncodeError::Unavailable {
                    encoder: "fake",
                    reason: "its library is not installed".to_owned(),
                    remedy: "apt install its-library".to_owned(),
                }),
                Self::NoCodec => Ok(Vec::new()),
                _ => Ok(vec![Codec::H264]),
            }
        }
        fn open(&self, _: &EncodeSpec) -> Result<Box<dyn Encoder>, EncodeError> {
            Ok(Box::new(FakeEncoder(*self, 0)))
        }
    }

    struct FakeEncoder(Fake, u32);

    impl Encoder for FakeEncoder {
        fn encode(
            &mut self,
            frame: &CapturedFrame,
            _: PictureRequest,
        ) -> Result<AccessUnit, EncodeError> {
            if self.0 == Fake::Fails {
                let reason = "no memory on the device".to_owned();
                return Err(EncodeError::Failed { encoder: "fake", reason });
            }
            self.1 += 1;
            let idr = self.1 == 1 && self.0 != Fake::NeverIdr;
            Ok(AccessUnit {
                source: frame.index,
                kind: if idr { FrameKind::Idr } else { FrameKind::Predicted },
                captured_at: frame.captured_at,
                encode_began_at: clock::now(),
                encoded_at: clock::now(),
                repeated: false,
                bytes: vec![1; 10],
            })
        }
    }

    #[test]
    fn only_an_encoder_that_begins_with_an_idr_picture_works() {
        assert_eq!(
            idr(&Fake::Opens),
            Finding::works_with("H.264: an IDR picture of 10 bytes, then one of 10 bytes")
        );
        for (fake, word) in [(Fake::NeverIdr, "not of Idr"), (Fake::Fails, "no memory")] {
            let Finding::Broken { reason } = idr(&fake) else { panic!("{word}") };
            assert!(reason.contains(word), "{reason}");
        }
        let Finding::Missing { reason, remedy } = idr(&Fake::NotThere) else { panic!() };
        assert!(reason.contains("not installed") && remedy == "apt install its-library");
        assert!(matches!(idr(&Fake::NoCodec), Finding::Unproven { .. }));
    }

    #[test]
    fn x264_works_here() {
        let finding = idr(&X264Backend);
        assert!(finding.works(), "{finding}");
    }
}
