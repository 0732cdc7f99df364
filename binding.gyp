{
  "variables": {
    # An installed package ships no tests.
    "has_tests": "<!(test -d tests/native && echo 1 || echo 0)"
  },
  "target_defaults": {
    "include_dirs": ["cuda"],
    "cflags": ["-Wall", "-Wextra"],
    # A product and a sum may be contracted only where the numeric contract says fma. Instruction sets are chosen per
    # function at run time, so no -march here.
    "cflags_cc": ["-std=c++17", "-fexceptions", "-frtti", "-O3", "-ffp-contract=off"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"]
  },
  "targets": [
    {
      "target_name": "detinfer_engine",
      "type": "static_library",
      "product_prefix": "lib",
      "product_extension": "a",
      "cflags": ["-fPIC"],
      # Globs, so that a new file needs no edit here; scripts/build.mjs configures anew when the list of files changes.
      "sources": ["<!@(find cuda/core cuda/kernels cuda/layers cuda/models cuda/engine -name '*.cpp' | LC_ALL=C sort)"]
    },
    {
      "target_name": "detinfer_cpu",
      "dependencies": ["detinfer_engine"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS_ALL"],
      "sources": ["<!@(find cuda/addon -name '*.cpp' | LC_ALL=C sort)", "cuda/bench/bandwidth.cpp"]
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
    ]
  ]
}
