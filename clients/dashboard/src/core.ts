/**
 * What the shell or most views use. The build puts it into one file, which is loaded first: without this, the parts that
 * any two views share would each become a file.
 */
import "./components/filter-parts.tsx";
import "./components/hatch.tsx";
import "./components/layout.tsx";
import "./components/lazy.tsx";
import "./components/link.tsx";
import "./components/search-box.tsx";
import "./components/silent.tsx";
import "./components/table.tsx";
import "./components/text.tsx";
import "./components/values.tsx";
import "./components/worker-status.tsx";
import "./gaps.ts";
import "./gateway.ts";
import "./keys.ts";
import "./navigation.ts";
import "./overview.ts";
import "./pointer.ts";
