{
  "variables": {
    # An installed package ships no tests.
    "has_tests": "<!(test -d tests/native && echo 1 || echo 0)",
    # The CUDA engine is built where there is a compiler for it (CUDA 12.3 or later); a GPU is needed only to run it.
    "nvcc": "<!(node scripts/cuda-toolkit.mjs nvcc)",
    "cudart": ["<!(node scripts/cuda-toolkit.mjs cudart)", "-ldl", "-lrt", "-pthread"],
    "cuda_headers": ["<!@(find cuda tests -name '*.h' -o -name '*.cuh' | LC_ALL=C sort)"]
  },
  "target_defaults": {
    "include_dirs": ["cuda"],
    "cflags": ["-Wall", "-Wextra"],
    # A product and a sum may be contracted only where the numeric contract says fma. Instruction sets are chosen per
    # function at run time, so no -march here.
    "cflags_cc": ["-std=c++17", "-fexceptions", "-frtti", "-O3", "-ffp-contract=off"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
    "rules": [
      {
        "rule_name": "nvcc",
        "extension": "cu",
        # Without them, an edit of a header would leave objects stale.
        "inputs": ["<@(cuda_headers)"],
        # The folder keeps two files of one name apart.
        "outputs": ["<(INTERMEDIATE_DIR)/<(RULE_INPUT_DIRNAME)/<(RULE_INPUT_ROOT).cu.o"],
        "process_outputs_as_sources": 1,
        "message": "nvcc <(RULE_INPUT_PATH)",
        "action": [
          "node", "scripts/nvcc.mjs", "<(nvcc)", "<(RULE_INPUT_PATH)", "<@(_outputs)", "-O3", "-std=c++17",
          "-gencode=arch=compute_90a,code=sm_90a", "-fmad=false", "-Xcompiler", "-ffp-contract=off,-Wall,-fPIC,-pthread",
          "-Icuda", "-I."
        ]
      }
    ]
  },
  "targets": [
    {
      "target_name": "detinfer_engine",
      "type": "static_library",
      "product_prefix": "lib",
      "product_extension": "a",
      "cflags": ["-fPIC"],
      # Globs, so that a new file needs no edit here; scripts/build.mjs configures anew when the list of files changes.
      "sources": [
        "<!@(find cuda/core cuda/kernels cuda/attention cuda/device cuda/layers cuda/models cuda/engine -name '*.cpp' | LC_ALL=C sort)"
      ]
    },
    {
      "target_name": "detinfer_cpu",
      "dependencies": ["detinfer_engine"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS_ALL"],
      "sources": ["<!@(find cuda/addon -name '*.cpp' ! -name device_cuda.cpp | LC_ALL=C sort)"]
    },
    {
      "target_name": "detinfer_system",
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS_ALL"],
      "sources": ["cuda/system/system.cpp"]
    },
    {
      "target_name": "detinfer_bench",
      "type": "executable",
      "product_extension": "",
      "dependencies": ["detinfer_engine"],
      "libraries": ["-pthread"],
      "sources": ["<!@(find cuda/bench -name '*.cpp' | LC_ALL=C sort)"]
    }
  ],
  "conditions": [
    [
      "has_tests==1",
      {
        "targets": [
          {
            # Linking an executable finds the undefined symbols that a loadable module would hide until it is loaded.
            "target_name": "detinfer_native_tests",
            "type": "executable",
            "product_extension": "",
            "dependencies": ["detinfer_engine"],
            "include_dirs": ["."],
            "libraries": ["-pthread"],
            "sources": ["<!@(find tests/native -name '*.cpp' | LC_ALL=C sort)"]
          }
        ]
      }
    ],
    [
      "nvcc!='none'",
      {
        "targets": [
          {
            "target_name": "detinfer_cuda_kernels",
            "type": "static_library",
            "product_prefix": "lib",
            "product_extension": "a",
            "dependencies": ["detinfer_engine"],
            "sources": ["<!@(find cuda/core cuda/kernels cuda/attention cuda/device -name '*.cu' | LC_ALL=C sort)"],
            "actions": [
              {
                "action_name": "embed_triton",
                # The manifest holds the hashes of the cubins, so it changes with them.
                "inputs": ["scripts/embed-triton.mjs", "cuda/attention/triton/kernels/manifest.json"],
                "outputs": ["<(INTERMEDIATE_DIR)/triton_kernels.cpp"],
                "process_outputs_as_sources": 1,
                "action": ["node", "scripts/embed-triton.mjs", "<@(_outputs)"]
              }
            ]
          },
          {
            "target_name": "detinfer_cuda",
            "dependencies": ["detinfer_cuda_kernels", "detinfer_engine"],
            "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
            "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS_ALL"],
            "libraries": ["<@(cudart)"],
            "sources": ["<!@(find cuda/addon -name '*.cpp' ! -name device_cpu.cpp | LC_ALL=C sort)"]
          }
        ]
      }
    ],
    [
      "nvcc!='none' and has_tests==1",
      {
        "targets": [
          {
            "target_name": "detinfer_cuda_tests",
            "type": "executable",
            "product_extension": "",
            "dependencies": ["detinfer_cuda_kernels", "detinfer_engine"],
            "include_dirs": ["."],
            "libraries": ["<@(cudart)"],
            "sources": ["<!@(find tests/cuda -name '*.cu' | LC_ALL=C sort)"]
          },
          {
            "target_name": "detinfer_cuda_bench",
            "type": "executable",
            "product_extension": "",
            "dependencies": ["detinfer_cuda_kernels", "detinfer_engine"],
            "include_dirs": ["."],
            "libraries": ["<@(cudart)"],
            "sources": ["<!@(find cuda/bench -name '*.cu' | LC_ALL=C sort)"]
          }
        ]
      }
    ]
  ]
}
