"""The local copy beside whole answers of SIORG: discovery, verification and preview, three uses of one comparison."""
