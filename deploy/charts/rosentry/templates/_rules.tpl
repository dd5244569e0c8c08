{{- /* The groups of rules. Those of rules/*.yaml stand as they are: Prometheus' own templates are in them. What the values set comes
       to them as series, recorded in the first group. */}}
{{- define "rosentry.rules" -}}
{{- $set := .Values.prometheusRule -}}
groups:
  - name: rosentry.settings
    rules:
      - record: rosentry:target:enforcement
        expr: vector({{ $set.enforcementTarget }})
      - record: rosentry:target:refusal_free
        expr: vector({{ $set.refusalObjective }})
      - record: rosentry:target:tmpfs_used
        expr: vector({{ $set.tmpfsLimit }})
      - record: cluster_namespace:rosentry_production:info
        expr: group by (cluster, namespace) (rosentry_container_readonly_rootfs{namespace=~{{ $set.productionNamespaces | quote }}})
{{- range $path, $_ := .Files.Glob "rules/*.yaml" }}
{{- $file := $.Files.Get $path | fromYaml }}
{{- range $group := $file.groups }}
{{- range $rule := $group.rules }}
{{- $_ := set $rule "expr" ($rule.expr | replace `daemonset=~"(.+-)?rosentry"` (printf "daemonset=%q" (include "rosentry.fullname" $))) }}
{{- if $rule.alert }}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s%s.md" $set.runbookUrl $rule.alert) }}
{{- $_ := set $rule "labels" (merge (dict) $rule.labels $set.alertLabels) }}
{{- end }}
{{- end }}
{{ list $group | toYaml | indent 2 }}
{{- end }}
{{- end }}
{{- end }}
