// A kernel that Triton compiled, loaded into the current device.
#pragma once

#include <cuda.h>

#include <string>

#include "attention/triton/compiled.h"
#include "core/driver.cuh"
#include "core/error.h"

namespace detinfer::triton {

class Kernel {
 public:
  /// @throws Error kEngineFailed if there is none of this name or the driver does not take it
  explicit Kernel(const std::string& name);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  /// Programs that a multiprocessor can run at a time.
  int programs_per_multiprocessor() const;

  /// Launches so many programs, which may overlap the end of the kernel before: they obey the rule of core/launch.cuh.
  /// @param arguments as the Python function has them, without its constants @throws Error kEngineFailed
  template <class... Arguments>
  void launch(int programs, cudaStream_t stream, const Arguments&... arguments) const {
    const char types[] = {type_of(arguments)..., 'p', 'p', '\0'};
    check_types(types);
    void* const no_scratch = nullptr;
    const void* const pointers[] = {&arguments..., &no_scratch, &no_scratch};
    launch_with(programs, stream, const_cast<void**>(pointers));
  }

 private:
  template <class T>
  static char type_of(const T* const&) { return 'p'; }
  static char type_of(const int&) { return 'i'; }
  static char type_of(const int64_t&) { return 'l'; }
  static char type_of(const float&) { return 'f'; }
  static char type_of(const CUtensorMap&) { return 'm'; }
  /// A launch that does not fit the source would read garbage.
  void check_types(const std::string& types) const;
  void launch_with(int programs, cudaStream_t stream, void** arguments) const;

  const CompiledKernel& compiled_;
  CUmodule module_ = nullptr;
  CUfunction function_ = nullptr;
};

}  // namespace detinfer::triton
