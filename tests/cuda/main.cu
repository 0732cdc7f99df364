// Runs the tests of the CUDA kernels on the first GPU: detinfer_cuda_tests [substring of "table/test"].
#include <cstdio>
#include <exception>
#include <string>

#include "tests/native/check.h"

namespace detinfer::testing {

extern const TestTable kCudaFa3RopeTests;
extern const TestTable kCudaFa3Tests;
extern const TestTable kCudaFewRowsTests;
extern const TestTable kCudaFlashinferRopeTests;
extern const TestTable kCudaFlashinferTests;
extern const TestTable kCudaLinearTests;
extern const TestTable kCudaMoeTests;
extern const TestTable kCudaSamplerTests;
extern const TestTable kCudaSmallOpsTests;
extern const TestTable kCudaSwigluTests;
extern const TestTable kCudaTritonRopeTests;
extern const TestTable kCudaTritonTests;

const TestTable* const kTables[] = {&kCudaLinearTests,   &kCudaSwigluTests, &kCudaMoeTests,
                                    &kCudaFewRowsTests,  &kCudaSmallOpsTests, &kCudaSamplerTests,
                                    &kCudaFa3Tests,      &kCudaFlashinferTests, &kCudaTritonTests,
                                    &kCudaFa3RopeTests,  &kCudaFlashinferRopeTests, &kCudaTritonRopeTests};

}  // namespace detinfer::testing

int main(int argc, char** argv) {
  using namespace detinfer::testing;
  const std::string filter = argc > 1 ? argv[1] : "";
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no GPU found: these tests need one\n0 passed, 1 failed\n");
    return 1;
  }
  int passed = 0, failed = 0;
  for (const TestTable* table : kTables) {
    for (const Test& test : table->tests) {
      const std::string name = std::string(table->name) + "/" + test.name;
      if (name.find(filter) == std::string::npos) continue;
      std::printf("%s ... ", name.c_str());
      std::fflush(stdout);
      try {
        test.run();
        std::printf("ok\n");
        ++passed;
      } catch (const std::exception& error) {
        std::printf("FAILED\n  %s\n", error.what());
        ++failed;
      }
    }
  }
  if (passed + failed == 0) {
    std::printf("no test matches '%s'\n", filter.c_str());
    ++failed;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
