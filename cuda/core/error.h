// Errors of the native engine. They cross the addon boundary as a DetinferError with the same code.
#pragma once

#include <stdexcept>
#include <string>

namespace detinfer {

/// Names match ErrorCode in lib/protocol/errors.ts.
enum class ErrorCode { kInvalidModel, kInvalidWeights, kUnsupported, kInvalidRequest, kOutOfMemory, kEngineFailed };

inline const char* error_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidModel: return "INVALID_MODEL";
    case ErrorCode::kInvalidWeights: return "INVALID_WEIGHTS";
    case ErrorCode::kUnsupported: return "UNSUPPORTED";
    case ErrorCode::kInvalidRequest: return "INVALID_REQUEST";
    case ErrorCode::kOutOfMemory: return "OUT_OF_MEMORY";
    default: return "ENGINE_FAILED";
  }
}

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace detinfer
